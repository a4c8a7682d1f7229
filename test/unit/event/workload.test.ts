/**
 * Goal: the digest of shipped code names exactly what was shipped: any other content, mode, path, kind or order is
 * another one, and what only starts it (handler, arguments, environment) is not part of it.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { shippedCode } from '../../../src/event/workload.ts';
import type { FunctionEntry, Workload } from '../../../src/event/workload.ts';

const file: FunctionEntry = { kind: 'file', path: 'h.mjs', mode: 0o644, content: Buffer.from('1') };
const folder: FunctionEntry = { kind: 'folder', path: 'lib', mode: 0o755 };
const link: FunctionEntry = { kind: 'link', path: 'lib/a', mode: 0o777, target: '../h.mjs' };

function of(...entries: readonly FunctionEntry[]): Workload {
  return { kind: 'runtime', handler: '/function/h.mjs', entries };
}

test('the digest can be computed from docs/FORMATS.md alone', () => {
  const sha256 = (text: string): string => `sha256:${createHash('sha256').update(text).digest('hex')}`;
  const listing = `[{"digest":"${sha256('1')}","kind":"file","mode":420,"path":"h.mjs"},` +
    '{"kind":"folder","mode":493,"path":"lib"},{"kind":"link","mode":511,"path":"lib/a","target":"../h.mjs"}]';
  assert.deepEqual(shippedCode(of(file, folder, link)), { digest: sha256(listing), bytes: 1, files: 1 });
  assert.deepEqual(shippedCode(of()), { digest: sha256('[]'), bytes: 0, files: 0 });
});

test('every change makes another digest; the way it is started makes none', () => {
  const all = [
    of(file, folder, link), of(folder, file, link), of(file, folder), of(file),
    of({ ...file, mode: 0o755 }), of({ ...file, path: 'g.mjs' }), of({ ...file, content: Buffer.from('2') }),
    of({ kind: 'folder', path: 'h.mjs', mode: 0o644 }), of(file, folder, { ...link, target: 'b' }),
  ];
  assert.equal(new Set(all.map((each) => shippedCode(each).digest)).size, all.length);
  const executable: Workload = { kind: 'executable', argv: ['/function/h.mjs'], raw: true, entries: [file] };
  assert.deepEqual(shippedCode(executable), shippedCode({ ...of(file), env: new Map([['A', '1']]) }));
});
