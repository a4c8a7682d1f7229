/**
 * Goal: every fuzz target runs, finds nothing in a short while, and the fuzzer does find a bug where there is one.
 * Method: fixed iterations, half from a fixed seed and half from a new one, which the failure names; a canary.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crashOf, fuzz } from './fuzzer.ts';
import { FuzzRandom } from './random.ts';
import { canary, targets } from './registry.ts';

for (const [name, target] of Object.entries(targets)) {
  for (const seed of [1, Date.now() >>> 0]) {
    test(`${name} from seed ${seed}`, async () => {
      const { crash } = await fuzz({ target, seed, goOn: (iterations) => iterations < target.smokeIterations / 2 });
      if (crash === undefined) return;
      const again = `node test/fuzz/run.ts --target ${name} --seed ${crash.seed} --seconds 1`;
      throw new Error(`${again}\n${crash.input.toString('hex').slice(0, 2000)}`, { cause: crash.error });
    });
  }
}

test('the canary is found, and its crash is cut down to the byte that matters', async () => {
  const { crash } = await fuzz({ target: canary, seed: 1, goOn: (iterations) => iterations < canary.smokeIterations });
  assert.ok(crash !== undefined, 'a known bug was not found: the fuzzer finds nothing');
  assert.deepEqual(crash.input, Buffer.from([255]));
  assert.notEqual(await crashOf(canary, crash.input), undefined);
});

test('a seed gives the same inputs again', () => {
  for (const target of Object.values(targets)) {
    assert.deepEqual(target.make(new FuzzRandom(42)), target.make(new FuzzRandom(42)));
    assert.notDeepEqual(target.make(new FuzzRandom(42)), target.make(new FuzzRandom(43)));
  }
});
