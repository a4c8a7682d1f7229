/** The agent is the same program wherever it is compiled. */
import assert from 'node:assert/strict';
import { cp, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openStore } from '../../../src/image/store.ts';
import type { Artefact } from '../../../src/image/store.ts';
import { attempt } from '../../../scripts/setup/command.ts';
import { agentStep } from '../../../scripts/setup/guest.ts';
import type { Workshop } from '../../../scripts/setup/workshop.ts';

const root = join(import.meta.dirname, '../../..');
const compiler = (await attempt(['musl-gcc', '--version'])).status === 0;

test('two folders, two times, one digest', { skip: compiler ? false : 'musl-gcc is not installed' }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'mayfly-agent-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  // One reading of the sources for both: somebody may be editing them.
  const source = join(folder, 'source');
  for (const part of ['guest/agent', 'scripts/setup/guest.ts']) {
    await cp(join(root, part), join(source, part), { recursive: true });
  }
  const build = async (name: string): Promise<Artefact> => {
    const copy = join(folder, name);
    await cp(source, copy, { recursive: true });
    const scratch = join(copy, 'scratch');
    await mkdir(scratch);
    const workshop: Workshop = {
      root: copy, home: copy, scratch, store: openStore(join(copy, 'home')), nodeBinary: '/none',
      now: () => '2026-01-01T00:00:00.000Z', signal: new AbortController().signal,
    };
    const inputs = await agentStep.inputs(workshop);
    await agentStep.build(workshop, inputs, () => {});
    return (await workshop.store.find('agent')) ?? assert.fail('no agent');
  };
  const [one, two] = [await build('a'), await build('another-much-longer-name')];
  assert.equal(one.digest, two.digest);
  assert.equal(one.inputs, two.inputs, 'the place of the checkout is no input');
  const program = await readFile(one.path);
  assert.equal(program.toString('latin1', 1, 4), 'ELF');
  assert.ok(!program.includes(folder), 'no path of the machine that compiled it');
});
