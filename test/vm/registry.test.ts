/**
 * Goal: an image is pulled from a real registry and serves an event. Method: Debian's docker-registry, unpacked and not
 * installed, on loopback with a password; an image is pushed to it by the distribution API and imported by name.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { blobsOf, tarOf } from '../unit/image/oci/archive.ts';
import { ownHome } from './homes.ts';
import type { OwnHome } from './homes.ts';
import { listening } from './servers.ts';

const BASIC = `Basic ${Buffer.from('user:secret').toString('base64')}`;
let own: OwnHome;
let folder = '';
let host = '';
const closing: (() => unknown)[] = [];

before(async () => {
  own = await ownHome();
  ({ folder } = own);
  execFileSync('apt-get', ['download', 'docker-registry', 'busybox-static'], { cwd: folder, stdio: 'pipe' });
  for (const deb of (await readdir(folder)).filter((name) => name.endsWith('.deb'))) {
    execFileSync('dpkg-deb', ['-x', deb, 'debs'], { cwd: folder });
  }
  host = await startRegistry();
});
after(async () => {
  for (const close of closing) close();
  await own.remove();
});

async function freePort(): Promise<number> {
  const closers: (() => unknown)[] = [];
  const port = await listening({ after: (work) => void closers.push(work) }, createServer());
  for (const close of closers) close();
  return port;
}

async function startRegistry(): Promise<string> {
  const address = `127.0.0.1:${await freePort()}`;
  await writeFile(join(folder, 'htpasswd'), 'user:$2b$04$Kg4nGhWCiFT9LvAIjsxzRucajfgu6HzY1WC0lSiln1oZGZ9wscV8i\n');
  const config = {
    version: '0.1', log: { level: 'error', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(folder, 'registry') } },
    http: { addr: address },
    auth: { htpasswd: { realm: 'test', path: join(folder, 'htpasswd') } },
  };
  await writeFile(join(folder, 'config.yml'), JSON.stringify(config));
  const child = spawn(join(folder, 'debs/usr/bin/docker-registry'), ['serve', join(folder, 'config.yml')]);
  closing.push(() => child.kill('SIGKILL'));
  for (let tries = 0; tries < 100; tries += 1) {
    const answer = await fetch(`http://${address}/v2/`).catch(() => undefined);
    if (answer?.status === 401) return address;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error('the registry does not start');
}

async function push(name: string, tag: string, image: ReturnType<typeof blobsOf>): Promise<void> {
  const send = async (method: string, url: string, body?: Buffer, type = 'application/octet-stream') => {
    const headers = { authorization: BASIC, 'content-type': type };
    return await fetch(url, { method, headers, ...(body === undefined ? {} : { body: new Uint8Array(body) }) });
  };
  for (const [digest, bytes] of image.blobs) {
    const started = await send('POST', `http://${host}/v2/${name}/blobs/uploads/`);
    const place = new URL(started.headers.get('location') ?? '', `http://${host}`);
    place.searchParams.set('digest', digest);
    assert.equal((await send('PUT', place.href, bytes)).status, 201);
  }
  const type = 'application/vnd.oci.image.manifest.v1+json';
  assert.equal((await send('PUT', `http://${host}/v2/${name}/manifests/${tag}`, image.manifest, type)).status, 201);
}

test('docker://: refused without its password, pulled with it, by tag and digest, and run', async () => {
  const busybox = await readFile(join(folder, 'debs/bin/busybox'));
  const layer = await tarOf([{ name: 'bin/busybox', bytes: busybox, mode: 0o755 }]);
  const config = { Entrypoint: ['/bin/busybox', 'echo', '{"from":"registry"}'] };
  const image = blobsOf({ layers: [layer], config }, gzipSync);
  await push('team/echo', '1', image);

  const none = { HOME: folder, DOCKER_CONFIG: join(folder, 'none'), REGISTRY_AUTH_FILE: '' };
  const refused = await own.mayfly(['image', 'import', `docker://${host}/team/echo:1`, '--as', 'echo'], none);
  assert.equal(refused.code, 2, refused.err);
  assert.match(refused.err, /E_IMAGE_AUTH/);

  await mkdir(join(folder, 'docker'));
  const auths = { [host]: { auth: BASIC.slice('Basic '.length) } };
  await writeFile(join(folder, 'docker/config.json'), JSON.stringify({ auths }));
  const env = { ...none, DOCKER_CONFIG: join(folder, 'docker') };
  const pulled = await own.mayfly(['image', 'import', `docker://${host}/team/echo:1`, '--as', 'echo', '--json'], env);
  assert.equal(pulled.code, 0, pulled.err);
  const byDigest = `docker://${host}/team/echo@${image.digest}`;
  const again = await own.mayfly(['image', 'import', byDigest, '--as', 'same'], env);
  assert.equal(again.code, 0, again.err);
  const ran = await own.mayfly(['run', '--image', 'echo', '--data', '{}']);
  assert.deepEqual([ran.code, ran.out], [0, '{"from":"registry"}\n'], ran.err);
  const absent = await own.mayfly(['image', 'import', `docker://${host}/team/echo:2`, '--as', 'x'], env);
  assert.match(absent.err, /E_IMAGE_SOURCE/);
});
