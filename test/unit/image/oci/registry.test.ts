/**
 * Goal: an image comes from a registry whole and right, or not at all and soon, whatever the registry does. Method: a
 * server on loopback that plays a registry with a fault, and the real import.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { credentialsIn, parseChallenge, parseToken } from '../../../../src/image/oci/challenge.ts';
import { importImage } from '../../../../src/image/oci/import.ts';
import type { MergedImage } from '../../../../src/image/oci/import.ts';
import { parseReference } from '../../../../src/image/oci/reference.ts';
import type { RegistryAccess } from '../../../../src/image/oci/registry.ts';
import { blobsOf, tarOf } from './archive.ts';

type Serve = (request: IncomingMessage, response: ServerResponse) => void;

async function serving(t: TestContext, serve: Serve): Promise<string> {
  const server = createServer(serve).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  return typeof address === 'object' && address !== null ? `127.0.0.1:${address.port}` : assert.fail('no port');
}

/** What a registry holds, by path below `/v2/`, and how it is asked. */
const image = await (async () => {
  const layer = await tarOf([
    { name: 'bin/tool', text: 'x'.repeat(200_000), mode: 0o755 },
    { name: 'etc/motd', text: 'hello' },
  ]);
  return blobsOf({ layers: [layer], config: { Entrypoint: ['/bin/tool'] } }, gzipSync);
})();
const contents = new Map<string, Buffer>();
for (const [digest, bytes] of image.blobs) contents.set(`team/app/blobs/${digest}`, bytes);
contents.set('team/app/manifests/1', image.manifest);
contents.set(`team/app/manifests/${image.digest}`, image.manifest);
const layerPath = `/v2/team/app/blobs/${image.layers[0]}`;

function honest(request: IncomingMessage, response: ServerResponse): void {
  const bytes = contents.get((request.url ?? '').slice('/v2/'.length));
  if (bytes === undefined) return void response.writeHead(404).end('{"errors":[{"code":"MANIFEST_UNKNOWN"}]}');
  const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
  if (from === 0) return void response.end(bytes);
  response.writeHead(206, { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` });
  response.end(bytes.subarray(from));
}

const after: RegistryAccess['after'] = (millis, fire) => {
  const timer = setTimeout(fire, millis);
  return () => clearTimeout(timer);
};
const BOUNDS = {
  registryAnswerMillisMax: 600, registryIdleMillisMax: 400, registryBlobMillisMax: 1_500, registryBackoffMillis: 1,
};

async function pull(
  t: TestContext,
  source: string,
  { authFile, plainHttp = false, bounds = BOUNDS, signal = new AbortController().signal }: Partial<RegistryAccess> & {
    readonly signal?: AbortSignal;
  } = {},
): Promise<MergedImage> {
  const folder = await mkdtemp(join(tmpdir(), 'mayfly-registry-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const registry = { after, plainHttp, authFile, bounds };
  const options = { scratch: join(folder, 'scratch'), signal, say: () => {}, registry };
  try {
    return await importImage(parseReference(source), options, async (merged) => merged);
  } finally {
    assert.deepEqual(await readdir(folder), [], 'something of the download is left');
  }
}

async function authFileOf(t: TestContext, content: unknown): Promise<{ path: string; required: boolean }> {
  const folder = await mkdtemp(join(tmpdir(), 'mayfly-auth-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, 'config.json');
  await writeFile(path, JSON.stringify(content));
  return { path, required: true };
}

test('by tag, by digest and through an index for several platforms', async (t) => {
  const index = Buffer.from(JSON.stringify({
    schemaVersion: 2,
    manifests: [
      { digest: `sha256:${'0'.repeat(64)}`, size: 1, platform: { os: 'linux', architecture: 'arm64' } },
      {
        mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: image.digest, size: image.manifest.length,
        platform: { os: 'linux', architecture: 'amd64' },
      },
    ],
  }));
  const host = await serving(t, (request, response) => {
    if (request.url === '/v2/team/app/manifests/many') response.end(index);
    else honest(request, response);
  });
  for (const name of ['team/app:1', `team/app@${image.digest}`, 'team/app:many']) {
    const merged = await pull(t, `docker://${host}/${name}`);
    assert.deepEqual([merged.digest, merged.layers, merged.command?.entrypoint], [image.digest, 1, ['/bin/tool']]);
  }
  await assert.rejects(pull(t, `docker://${host}/team/app:2`), { code: 'E_IMAGE_SOURCE' });
  const other = `sha256:${'1'.repeat(64)}`;
  await assert.rejects(pull(t, `docker://${host}/team/app@${other}`), { code: 'E_IMAGE_SOURCE' });
});

test('a token server: the token is for pulling this repository alone, and goes to the registry alone', async (t) => {
  const asked: string[] = [];
  const tokens = await serving(t, (request, response) => {
    asked.push(`${request.url} ${request.headers.authorization}`);
    response.end(JSON.stringify({ token: 'T0K3N' }));
  });
  const elsewhere: string[] = [];
  const store = await serving(t, (request, response) => {
    elsewhere.push(String(request.headers.authorization));
    honest(request, response);
  });
  const host = await serving(t, (request, response) => {
    if (request.headers.authorization !== 'Bearer T0K3N') {
      const challenge = `Bearer realm="http://${tokens}/token",service="reg",scope="repository:other:delete"`;
      response.writeHead(401, { 'www-authenticate': challenge }).end();
    } else if (request.url?.includes('/blobs/')) {
      response.writeHead(307, { location: `http://${store}${request.url}` }).end();
    } else honest(request, response);
  });
  const auth = Buffer.from('me:secret').toString('base64');
  const authFile = await authFileOf(t, { auths: { [host]: { auth } } });
  const merged = await pull(t, `docker://${host}/team/app:1`, { authFile });
  assert.equal(merged.digest, image.digest);
  assert.deepEqual(asked, [`/token?service=reg&scope=repository%3Ateam%2Fapp%3Apull Basic ${auth}`]);
  assert.ok(elsewhere.length > 0 && elsewhere.every((header) => header === 'undefined'));
});

test('credentials that are refused, missing, or left to a program', async (t) => {
  let requests = 0;
  const host = await serving(t, (_request, response) => {
    requests += 1;
    response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
  });
  await assert.rejects(pull(t, `docker://${host}/team/app:1`), { code: 'E_IMAGE_AUTH' });
  const files = [
    { auths: { [host]: { auth: Buffer.from('me:wrong').toString('base64') } } },
    { auths: { [host]: { auth: '####' } } },
    { auths: {}, credHelpers: { [host]: 'pass' } },
    [],
  ];
  for (const content of files) {
    const authFile = await authFileOf(t, content);
    await assert.rejects(pull(t, `docker://${host}/team/app:1`, { authFile }), { code: 'E_IMAGE_AUTH' });
  }
  const missing = { path: '/nonexistent/config.json', required: true };
  await assert.rejects(pull(t, `docker://${host}/team/app:1`, { authFile: missing }), { code: 'E_IMAGE_AUTH' });
  assert.ok(requests < 8, 'it asks again and again');
});

test('a download that breaks off goes on where it was, and starts anew where the registry cannot', async (t) => {
  for (const ranges of [true, false]) {
    const wanted: string[] = [];
    const host = await serving(t, (request, response) => {
      if (request.url !== layerPath) return honest(request, response);
      wanted.push(request.headers.range ?? 'all');
      const bytes = contents.get(layerPath.slice('/v2/'.length)) ?? Buffer.alloc(0);
      if (wanted.length > 1) {
        if (!ranges) delete request.headers.range;
        return honest(request, response);
      }
      response.writeHead(200, { 'content-length': bytes.length });
      response.write(bytes.subarray(0, 100), () => setTimeout(() => response.destroy(), 50));
    });
    assert.equal((await pull(t, `docker://${host}/team/app:1`)).digest, image.digest);
    assert.deepEqual(wanted, ['all', 'bytes=100-']);
  }
});

test('hostile registries end soon, each with its code', async (t) => {
  const endless = (response: ServerResponse, chunk: Buffer, every: number): void => {
    const timer = setInterval(() => response.write(chunk), every);
    response.on('close', () => clearInterval(timer));
  };
  let hops = 0;
  const faults: readonly (readonly [string, string, Serve])[] = [
    ['another layer of the same size', 'E_IMAGE_CORRUPT', (_request, response) => {
      response.end(Buffer.alloc(contents.get(layerPath.slice(4))?.length ?? 0));
    }],
    ['a layer without an end', 'E_IMAGE_CORRUPT', (_request, response) => endless(response, Buffer.alloc(65_536), 1)],
    ['a byte now and then', 'E_IMAGE_FETCH', (_request, response) => endless(response, Buffer.alloc(1), 100)],
    ['silence after the headers', 'E_IMAGE_FETCH', (_request, response) => void response.write('x')],
    ['no answer', 'E_IMAGE_FETCH', () => {}],
    ['a redirect loop', 'E_IMAGE_FETCH', (request, response) => {
      hops += 1;
      response.writeHead(307, { location: request.url ?? '' }).end();
    }],
    ['a redirect to a file', 'E_IMAGE_FETCH', (_request, response) => {
      response.writeHead(307, { location: 'file:///etc/passwd' }).end();
    }],
    ['plain HTTP to elsewhere', 'E_IMAGE_FETCH', (_request, response) => {
      response.writeHead(307, { location: 'http://registry.invalid/x' }).end();
    }],
    ['401 for ever', 'E_IMAGE_AUTH', (_request, response) => {
      response.writeHead(401, { 'www-authenticate': 'Digest x=y' }).end();
    }],
    ['403', 'E_IMAGE_AUTH', (_request, response) => void response.writeHead(403).end()],
    ['500', 'E_IMAGE_FETCH', (_request, response) => void response.writeHead(500).end()],
    ['another part', 'E_IMAGE_CORRUPT', (_request, response) => {
      response.writeHead(206, { 'content-range': 'bytes 7-9/10' }).end('abc');
    }],
  ];
  for (const [what, code, serve] of faults) {
    const host = await serving(t, (request, response) => {
      if (request.url === layerPath) serve(request, response);
      else honest(request, response);
    });
    const began = performance.now();
    await assert.rejects(pull(t, `docker://${host}/team/app:1`), { code }, what);
    assert.ok(performance.now() - began < 20_000, what);
  }
  assert.equal(hops, 6);
});

test('a manifest that is another one, too long or no manifest; a token server that is none', async (t) => {
  const other = `sha256:${'2'.repeat(64)}`;
  const answers: readonly (readonly [string, string, Serve])[] = [
    [`team/app@${other}`, 'E_IMAGE_CORRUPT', (_request, response) => void response.end(image.manifest)],
    ['team/app:1', 'E_IMAGE_CORRUPT', (_request, response) => void response.end('<html>')],
    ['team/app:1', 'E_IMAGE_CORRUPT', (_request, response) => void response.end(Buffer.alloc(5 << 20, 0x20))],
    ['team/app:1', 'E_IMAGE_AUTH', (request, response) => {
      if (request.url?.startsWith('/token')) return void response.end('{}');
      const realm = `http://${request.headers.host}/token`;
      response.writeHead(401, { 'www-authenticate': `Bearer realm="${realm}"` }).end();
    }],
    ['team/app:1', 'E_IMAGE_AUTH', (request, response) => {
      if (request.url?.startsWith('/token')) return void response.end(Buffer.alloc(1 << 20));
      const realm = `http://${request.headers.host}/token`;
      response.writeHead(401, { 'www-authenticate': `Bearer realm="${realm}"` }).end();
    }],
  ];
  for (const [name, code, serve] of answers) {
    const host = await serving(t, serve);
    await assert.rejects(pull(t, `docker://${host}/${name}`), { code }, code);
  }
});

test('Ctrl-C ends a download, and no registry elsewhere is spoken to without TLS', async (t) => {
  const stop = new AbortController();
  const host = await serving(t, (request, response) => {
    if (request.url === layerPath) setTimeout(() => stop.abort(), 20);
    else honest(request, response);
  });
  await assert.rejects(pull(t, `docker://${host}/team/app:1`, { signal: stop.signal }), { code: 'E_INTERRUPTED' });
  // No loopback by its name: TLS is spoken to the port, where nobody answers in TLS.
  const port = (await serving(t, honest)).split(':')[1] ?? '';
  await assert.rejects(pull(t, `docker://0.0.0.0:${port}/team/app:1`), { code: 'E_IMAGE_FETCH' });
  assert.equal((await pull(t, `docker://0.0.0.0:${port}/team/app:1`, { plainHttp: true })).layers, 1);
});

test('property: no header, token or configuration makes its reader throw anything but its code', () => {
  fc.assert(fc.property(fc.string(), fc.jsonValue(), (text, value) => {
    parseChallenge(text);
    const challenge = parseChallenge(`Bearer realm="${text}",service=${text}`);
    if (challenge?.kind === 'bearer') assert.ok(URL.canParse(challenge.realm));
    const token = parseToken(Buffer.from(JSON.stringify({ token: value })));
    assert.ok(token === undefined || /^[\x21-\x7e]+$/.test(token));
    parseToken(Buffer.from(text));
    for (const bytes of [text, JSON.stringify(value), JSON.stringify({ auths: { h: { auth: value } } })]) {
      try {
        credentialsIn(Buffer.from(bytes), 'h', 'file');
      } catch (thrown) {
        assert.equal((thrown as { code?: string }).code, 'E_IMAGE_AUTH');
      }
    }
  }));
  const began = performance.now();
  parseChallenge(`Bearer ${'a='.repeat(2_000)}`);
  assert.ok(performance.now() - began < 1_000);
});
