/**
 * Goal: the repository's word is what runs. Method: the real command line and a real image, which goes to another home
 * and serves an event there; then the same image after its signature, its tag or its bytes were tampered with.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, cp, link, mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { home } from './rig.ts';

const program = join(import.meta.dirname, '../../bin/mayfly');
let folder = '';
let other = '';

/** A home with kernel and initramfs of this machine's and no image. */
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mayfly-images-'));
  other = join(folder, 'home');
  await mkdir(join(other, 'artefacts'), { recursive: true });
  await chmod(folder, 0o711);
  for (const name of ['kernel', 'initramfs']) {
    const record = join('artefacts', `${name}.json`);
    const { digest } = JSON.parse(await readFile(join(home, record), 'utf8')) as { digest: string };
    const hex = digest.slice('sha256:'.length);
    const blob = join('store', 'sha256', hex.slice(0, 2), hex);
    await mkdir(dirname(join(other, blob)), { recursive: true });
    await link(join(home, blob), join(other, blob)).catch(() => cp(join(home, blob), join(other, blob)));
    await cp(join(home, record), join(other, record));
  }
});
after(() => rm(folder, { recursive: true, force: true }));

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function mayfly(at: string, ...args: string[]): Promise<Ended> {
  return await new Promise((resolve) => {
    const options = { env: { ...process.env, MAYFLY_HOME: at }, timeout: 120_000 };
    execFile(program, args, options, (error, out, err) => resolve({ code: Number(error?.code ?? 0), out, err }));
  });
}

const echo = (at: string, image: string, ...more: string[]): Promise<Ended> =>
  mayfly(at, 'run', '--image', image, ...more, '--program', '/bin/busybox', '--raw', '--', 'echo', 'here');

test('what was exported serves an event in another home, once its key is trusted there', async () => {
  const layout = join(folder, 'layout');
  assert.equal((await mayfly(home, 'image', 'export', 'shell', layout)).code, 0);
  assert.match((await mayfly(other, 'image', 'import', layout)).err, /E_IMAGE_UNSIGNED/);
  await writeFile(join(folder, 'key.pem'), (await mayfly(home, 'image', 'trust', '--own')).out);
  assert.equal((await mayfly(other, 'image', 'trust', join(folder, 'key.pem'))).code, 0);
  const imported = await mayfly(other, 'image', 'import', layout, '--tag', 'shell:moved');
  assert.deepEqual([imported.code, imported.err.split('\n').length], [0, 2], imported.err);
  const { code, out, err } = await echo(other, 'shell:moved');
  assert.deepEqual([code, out], [0, 'here\n'], err);
});

test('its template is built ahead; when nothing can ask for it any more, gc removes it', async () => {
  const templates = async (): Promise<string[]> => {
    const names = await readdir(join(other, 'templates'));
    return names.filter((name) => !name.endsWith('.lock'));
  };
  const before = await templates();
  const warmed = await mayfly(other, 'image', 'warm', 'shell:moved', '--json');
  const { warm, bytes, bytesMax } = JSON.parse(warmed.out || JSON.stringify(warmed.err)) as Record<string, unknown>;
  assert.deepEqual((warm as { image: string }[]).map(({ image }) => image), ['shell:moved']);
  assert.ok(Number(bytes) > 50e6 && Number(bytes) < 400e6 && Number(bytesMax) > 1e10, `${bytes} of ${bytesMax}`);
  assert.deepEqual(await templates(), before, 'the run before has built the same one');
  await mayfly(other, 'image', 'tag', 'shell:moved', 'shell:kept');
  await mayfly(other, 'image', 'untag', 'shell:moved');
  assert.match((await mayfly(other, 'image', 'gc')).out, /removed 0 templates/);
  await mayfly(other, 'image', 'untag', 'shell:kept');
  assert.match((await mayfly(other, 'image', 'gc', '--dry-run')).out, /would remove 1 templates/);
  assert.match((await mayfly(other, 'image', 'gc')).out, /removed 1 templates, 0 images/);
  assert.deepEqual(await templates(), []);
  const [digest] = await readdir(join(other, 'images', 'manifests'));
  const tagged = await mayfly(other, 'image', 'tag', `sha256:${digest?.replace('.json', '')}`, 'shell:moved');
  assert.equal(tagged.code, 0, tagged.err);
});

test('an image without a trusted key serves only when that is allowed', async () => {
  const trusted = join(other, 'keys', 'trusted');
  const own = (await mayfly(other, 'image', 'trust', '--own')).out;
  for (const key of await readdir(trusted)) {
    if ((await readFile(join(trusted, key), 'utf8')) !== own) await rm(join(trusted, key));
  }
  const refused = await echo(other, 'shell:moved');
  assert.deepEqual([refused.code, refused.out], [3, '']);
  assert.match(refused.err, /E_IMAGE_UNSIGNED/);
  const allowed = await echo(other, 'shell:moved', '--allow-unsigned');
  assert.deepEqual(allowed.out, 'here\n', allowed.err);
});

test('one changed byte in the store, or a tag of another name, and nothing is started', async () => {
  await mayfly(other, 'image', 'sign', 'shell:moved');
  assert.equal((await mayfly(other, 'image', 'verify')).code, 0);
  const tags = join(other, 'images', 'tags');
  await cp(join(tags, 'shell'), join(tags, 'node'), { recursive: true });
  assert.match((await echo(other, 'node:moved')).err, /E_IMAGE_SIGNATURE/);
  await rm(join(tags, 'node'), { recursive: true });
  const { out } = await mayfly(other, 'image', 'show', 'shell:moved', '--json');
  const { digest } = (JSON.parse(out) as { manifest: { fileSystem: { digest: string } } }).manifest.fileSystem;
  const hex = digest.slice('sha256:'.length);
  const blob = join(other, 'store', 'sha256', hex.slice(0, 2), hex);
  const { size } = await stat(blob);
  await chmod(blob, 0o644);
  const file = await open(blob, 'r+');
  await file.write(Buffer.from([0xff]), 0, 1, size - 1);
  await file.close();
  const { code, err } = await echo(other, 'shell:moved');
  assert.equal(code, 3);
  assert.match(err, /E_ARTEFACT_CORRUPT/);
  assert.equal((await mayfly(other, 'image', 'verify')).code, 3);
});
