/** Goal: `mayfly image …` does what its help says, with results on stdout alone. Method: a real repository. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { App } from '../../../src/app.ts';
import type { Io } from '../../../src/cli/io.ts';
import { runProgram } from '../../../src/cli/program.ts';
import { imageRig, stranger } from '../image/rig.ts';
import type { ImageRig } from '../image/rig.ts';

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** One template that nothing can ask for any more, and one that is in use. */
const template = { image: 'node', bytes: 100, usedAt: 0 };
const templates = {
  stock: async () => [{ ...template, key: 'node-old', stale: true }, { ...template, key: 'node-new', stale: false }],
  discardTemplates: async (going: readonly unknown[]) => going,
};

async function mayfly(rig: ImageRig, ...args: string[]): Promise<Ended> {
  const [out, err]: [Buffer[], Buffer[]] = [[], []];
  const io: Io = {
    out: (text) => void out.push(Buffer.from(text)),
    err: (text) => void err.push(Buffer.from(text)),
    outIsTerminal: false,
    errIsTerminal: false,
    colour: false,
    readInput: async () => Buffer.alloc(0),
    signal: new AbortController().signal,
    now: () => 0, wallNanos: () => 0n,
    openApp: async () => ({ images: async () => rig, ...templates }) as unknown as App,
    examples: '',
    version: '9.8.7',
  };
  const code = await runProgram(io, args);
  return { code, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() };
}

function jsonOf<T>({ out }: Ended): T {
  return JSON.parse(out) as T;
}

const commands = [
  'list', 'show', 'verify', 'build', 'check', 'tag', 'untag', 'remove', 'gc', 'export', 'import', 'sign', 'trust',
];

test('every command of the group has help with an example, and --json', async (t) => {
  const rig = await imageRig(t);
  for (const command of commands) {
    const { code, out } = await mayfly(rig, 'image', command, '--help');
    assert.equal(code, 0, command);
    assert.match(out, new RegExp(`Examples:\n  mayfly image ${command}`), command);
    assert.match(out, /--json/, command);
  }
  const { out } = await mayfly(rig, 'image', '--help');
  for (const command of commands) assert.match(out, new RegExp(`\n  ${command} `), command);
  assert.deepEqual((await mayfly(rig, 'image', 'tagg')).code, 2);
});

test('list, show and verify tell what is here and whose word it is', async (t) => {
  const rig = await imageRig(t);
  const image = await rig.make('base');
  assert.match((await mayfly(rig, 'image', 'list')).out, /node:latest +[0-9a-f]{12} +4 B +by [0-9a-f]{8} +compute web/);
  const listed = jsonOf<{ images: { digest: string; bytes: number }[] }>(await mayfly(rig, 'image', 'list', '--json'));
  assert.deepEqual(listed.images.map(({ digest, bytes }) => [digest, bytes]), [[image.digest, 4]]);
  const shown = await mayfly(rig, 'image', 'show', 'node');
  for (const words of [image.digest, 'libc6 2.36-9', 'seccomp compute', 'warm /usr/bin/node', 'standard']) {
    assert.ok(shown.out.includes(words), words);
  }
  const { manifest } = jsonOf<{ manifest: unknown }>(await mayfly(rig, 'image', 'show', 'node', '--json'));
  assert.deepEqual(manifest, image.manifest);
  const good = await mayfly(rig, 'image', 'verify');
  assert.deepEqual([good.code, good.out.startsWith('intact')], [0, true]);
  await rig.damage(rig.catalogue.blobs.path(image.manifest.fileSystem.digest), () => 'BASE');
  const bad = await mayfly(rig, 'image', 'verify', '--json');
  assert.deepEqual([bad.code, jsonOf<{ ok: boolean }>(bad).ok], [3, false]);
  await rig.damage(rig.tagPath('node', 'latest'), () => 'x');
  const listedBadly = await mayfly(rig, 'image', 'list');
  assert.deepEqual([listedBadly.code, /node:latest +E_IMAGE_SIGNATURE/.test(listedBadly.err)], [3, true]);
});

test('tags come and go, images go, space is freed', async (t) => {
  const rig = await imageRig(t);
  const image = await rig.make('base');
  assert.deepEqual(jsonOf(await mayfly(rig, 'image', 'tag', 'node', 'node:stable', '--json')), {
    tag: 'node:stable', digest: image.digest,
  });
  assert.equal((await mayfly(rig, 'image', 'untag', 'node:latest')).code, 0);
  assert.match((await mayfly(rig, 'image', 'untag', 'node:latest')).err, /E_IMAGE_UNKNOWN/);
  assert.match((await mayfly(rig, 'image', 'remove', 'node:stable')).out, /which was node:stable/);
  // The image's bytes are too young.
  assert.match((await mayfly(rig, 'image', 'gc')).out, /removed 1 templates, 0 images, 0 files, 100 B/);
  const looked = await mayfly(rig, 'image', 'gc', '--all', '--dry-run');
  assert.match(looked.out, /would remove 1 templates, 0 images, 1 files, 104 B/);
  assert.equal(jsonOf<{ bytes: number }>(await mayfly(rig, 'image', 'gc', '--all', '--json')).bytes, 104);
  assert.deepEqual(await rig.catalogue.blobs.list(), []);
});

test('from one machine to another: export, import, trust, sign', async (t) => {
  const [from, to] = [await imageRig(t, 1), await imageRig(t, 2)];
  const image = await from.make('base');
  const folder = join(from.home, 'out');
  const sent = await mayfly(from, 'image', 'export', 'node', folder);
  assert.deepEqual([sent.code, sent.err], [0, 'copying 4 B\n']);
  const refused = await mayfly(to, 'image', 'import', folder);
  assert.deepEqual([refused.code, refused.out], [3, '']);
  assert.match(refused.err, /E_IMAGE_UNSIGNED[\s\S]*mayfly image trust/);
  const pem = join(to.home, 'from.pem');
  await writeFile(pem, (await mayfly(from, 'image', 'trust', '--own')).out);
  const { keyId } = jsonOf<{ keyId: string }>(await mayfly(to, 'image', 'trust', pem, '--json'));
  assert.match((await mayfly(to, 'image', 'import', folder, '--tag', 'node:vendor')).out, new RegExp(image.digest));
  assert.match((await mayfly(to, 'image', 'sign', 'node:vendor')).out, new RegExp(keyId));
  assert.equal((await mayfly(to, 'image', 'trust', '--remove', keyId)).code, 0);
  assert.equal((await mayfly(to, 'image', 'trust', '--remove', keyId)).code, 2);
  const own = (await to.keys.own()).keyId;
  for (const key of [own, '../../../etc/x', 'sha256:../x']) {
    assert.equal((await mayfly(to, 'image', 'trust', '--remove', key)).code, 2, key);
  }
  assert.equal((await to.catalogue.find('node:vendor')).digest, image.digest, 'its own signature is enough');
  assert.deepEqual(jsonOf(await mayfly(to, 'image', 'trust', '--json')), { trusted: [own] });
});

test('what cannot be trusted says why', async (t) => {
  const rig = await imageRig(t);
  await writeFile(join(rig.home, 'stranger.pem'), stranger().pem);
  assert.equal((await mayfly(rig, 'image', 'trust', join(rig.home, 'stranger.pem'))).code, 0);
  assert.equal((await mayfly(rig, 'image', 'trust', join(rig.home, 'nowhere'))).code, 2);
  await writeFile(join(rig.home, 'x.pem'), stranger().pem.toString().replace('PUBLIC', 'PRIVATE'));
  assert.match((await mayfly(rig, 'image', 'trust', join(rig.home, 'x.pem'))).err, /E_IMAGE_KEY/);
  assert.equal((await mayfly(rig, 'image', 'trust', 'a', '--own')).code, 2);
});
