/**
 * Goal: what a function gives comes out of the command line only if it keeps the contract of `mayfly run` (F5, H3),
 * with real VMs. Method: run `bin/mayfly` with functions that return, leak and lie.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { home, inFolder } from './rig.ts';

const root = join(import.meta.dirname, '../..');

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

async function mayfly(folder: string, ...args: string[]): Promise<Ended> {
  const child = spawn(join(root, 'bin/mayfly'), args, { env: { ...process.env, MAYFLY_HOME: home }, cwd: folder });
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => { out += text; });
  child.stderr.setEncoding('utf8').on('data', (text: string) => { err += text; });
  child.stdin.end();
  return await new Promise((resolve) => child.once('close', (code) => resolve({ code, out, err })));
}

test('a schema, a secret and a validator that runs in a clone decide what comes out', async () => {
  await inFolder(async (folder) => {
    const write = (name: string, text: string): Promise<void> => writeFile(join(folder, name), text);
    await write('h.mjs', 'export default ({ data }) => data;');
    await write('check.mjs', `export default ({ type, data }) => ({
      accept: type === 'mayfly.output' && data.total < 100, reason: 'total is ' + data.total });`);
    await write('out.schema.json', '{"type":"object","required":["total"],"properties":{"total":{"type":"number"}}}');
    await write('secrets.json', '{"token":"correct-horse-battery"}');
    const demands = ['--schema', 'out.schema.json', '--secrets', 'secrets.json', '--validator', 'check.mjs'];
    const given = async (data: string): Promise<Ended> =>
      await mayfly(folder, 'run', '--handler', 'h.mjs', '--data', data, ...demands);

    const good = await given('{"total":7,"rest":12345678901234567890}');
    assert.deepEqual([good.code, good.out], [0, '{"total":7,"rest":12345678901234567000}\n'], good.err);
    const refused = await given('{"total":700}');
    assert.deepEqual([refused.code, refused.out], [1, '']);
    assert.match(refused.err, /E_OUTPUT_REJECTED[\s\S]*total is 700/);
    const shape = await given('{"sum":7}');
    assert.deepEqual([shape.code, shape.out], [1, '']);
    assert.match(shape.err, /E_OUTPUT_SCHEMA[\s\S]*required property 'total'/);
    const hidden = Buffer.from('x correct-horse-battery y').toString('base64');
    const leak = await given(`{"total":1,"text":"${hidden}"}`);
    assert.deepEqual([leak.code, leak.out], [5, '']);
    assert.match(leak.err, /E_OUTPUT_SECRET[\s\S]*token \(base64\)/);
    const evidence = await readFile(join(home, 'evidence/evidence.jsonl'), 'utf8');
    for (const text of ['correct-horse-battery', hidden]) {
      assert.ok(!evidence.includes(text) && !leak.err.includes(text), 'H3: not in evidence, nor said');
    }
    assert.match(evidence, /E_OUTPUT_SECRET/);
    const bad = await mayfly(folder, 'run', '--handler', 'h.mjs', '--schema', 'check.mjs');
    assert.match(bad.err, /E_SCHEMA_INVALID/);
    assert.equal(bad.code, 2);
  });
});
