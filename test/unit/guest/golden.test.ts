/**
 * The agent's codec against the golden frames of the host. Goal: both sides take and refuse exactly the same bytes, and
 * no truncation makes the agent read beyond what it was given. Method: guest/test/golden.c with the sanitizers.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { attempt } from '../../../scripts/setup/command.ts';

const root = join(import.meta.dirname, '../../..');
const skip = (await attempt(['gcc', '--version'])).status === 0 ? false : 'gcc is not installed';
let folder = '';

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mayfly-golden-'));
});

after(async () => {
  await rm(folder, { recursive: true, force: true });
});

test('every golden frame and every truncation of it', { skip }, async () => {
  const program = join(folder, 'golden');
  const sources = ['test/golden.c', 'agent/frame.c', 'agent/message.c'].map((path) => join(root, 'guest', path));
  const built = await attempt([
    'gcc', '-std=c11', '-g', '-O1', '-Wall', '-Wextra', '-Werror', '-fsanitize=address,undefined',
    '-fno-sanitize-recover=all', '-o', program, ...sources,
  ]);
  assert.equal(built.status, 0, built.stderr);
  const { status, stdout, stderr } = await attempt([program, join(root, 'test/golden/frames')]);
  assert.equal(status, 0, stdout + stderr);
  assert.match(stdout, /^\d{2,} cases, \d{4,} truncations, 0 failures\n$/);
});
