/**
 * Goal: mayfly.yaml is read as it was meant or refused with the line that is wrong, and docs/schema/function.json is
 * the same format. Method: whole manifests, one mistake each; random ones against the schema.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { isServiceName, manifestLimits, parseManifest } from '../../../src/function/manifest.ts';
import type { Manifest } from '../../../src/function/manifest.ts';

const schemaPath = join(import.meta.dirname, '../../../docs/schema/function.json');
const fits = new Ajv2020({ strict: false, allErrors: true }).compile(JSON.parse(readFileSync(schemaPath, 'utf8')));

function parse(text: string): ReturnType<typeof parseManifest> {
  return parseManifest('mayfly.yaml', Buffer.from(text));
}

function good(text: string): Manifest {
  const { manifest, problems } = parse(text);
  assert.deepEqual(problems, []);
  assert.ok(manifest);
  return manifest;
}

const LEAST = 'mayfly: 1\nname: hello\nhandler: ./h.mjs\n';

test('the least that a manifest says, and what it then means', () => {
  assert.deepEqual(good(LEAST), {
    manifestVersion: 1, name: 'hello', start: { kind: 'handler', file: 'h.mjs' }, image: 'node', limits: {}, floor: {},
    network: null, env: {}, concurrency: null, warm: null, rules: null,
    retry: { attempts: 3, backoffMillis: 1000, afterDelivery: true },
  });
});

test('everything that a manifest can say', () => {
  const manifest = good(`
mayfly: 1
name: resize-2
exec: bin/run.sh
args: [--size, 200]
raw: true
image: image:stable
limits: {memory: 512M, timeout: 5s, cpu: 50%, pids: 64, files: 256, scratch: 32M, output: 1M}
floor: {memory: 128M}
network: [api.example.com:443]
env: {MODE: fast, SIZE: 3}
concurrency: 4
warm: 2
retry: {attempts: 5, backoff: 500ms, afterDelivery: false}
rules: rules/
`);
  assert.deepEqual(manifest.start, { kind: 'exec', file: 'bin/run.sh', args: ['--size', '200'], raw: true });
  const { memoryBytes, wallMillis, cpuQuotaMicros } = manifest.limits;
  assert.deepEqual([memoryBytes, wallMillis, cpuQuotaMicros], [512 * 1024 ** 2, 5000, 50_000]);
  assert.equal(manifest.network?.rules[0]?.host, 'api.example.com');
  assert.deepEqual(manifest.env, { MODE: 'fast', SIZE: '3' });
  assert.deepEqual(manifest.retry, { attempts: 5, backoffMillis: 500, afterDelivery: false });
  assert.deepEqual([manifest.rules, manifest.concurrency, manifest.warm], ['rules', 4, 2]);
});

const mistakes: readonly (readonly [text: string, line: number, words: RegExp])[] = [
  ['name: hello\nhandler: h.mjs\n', 1, /mayfly is missing/],
  ['mayfly: 2\nname: hello\nhandler: h.mjs\n', 1, /mayfly must be 1/],
  ['mayfly: 1\nhandler: h.mjs\n', 1, /name is missing/],
  ['mayfly: 1\nname: Hello World\nhandler: h.mjs\n', 2, /must have letters a to z/],
  ['mayfly: 1\nname: hello\n', 1, /nothing to run/],
  [`${LEAST}exec: run.sh\n`, 4, /exclude each other/],
  [`${LEAST}memmory: 3\n`, 4, /has no memmory/],
  [`${LEAST}limits: {memroy: 256M}\n`, 4, /did you mean memory/],
  [`${LEAST}limits:\n  memory: lots\n`, 5, /limits\.memory: it must be written as in 64M/],
  [`${LEAST}limits:\n  memory: 9000G\n`, 5, /out of bounds/],
  [`${LEAST}limits:\n  memory: 128M\nfloor:\n  memory: 256M\n`, 7, /more than limits\.memory/],
  [`${LEAST}warm: many\n`, 4, /whole number from 0 to 32/],
  [`${LEAST}retry:\n  backoff: 3m\n`, 5, /a time up to 60s/],
  [`${LEAST}retry:\n  attempts: 11\n`, 5, /from 1 to 10/],
  [`${LEAST}env:\n  9LIVES: x\n`, 5, /does not begin with a digit/],
  [`${LEAST}network:\n  - 'http://x'\n`, 5, /network/],
  [`${LEAST}rules: ../outside\n`, 4, /inside the function's folder/],
  [`${LEAST}args: [a]\n`, 4, /is for exec and program/],
  ['mayfly: 1\nname: hello\nhandler: ../../etc/passwd\n', 3, /inside the function's folder/],
  ['mayfly: 1\nname: hello\nhandler: /etc/passwd\n', 3, /inside the function's folder/],
  ['mayfly: 1\nname: hello\nhandler: h.rb\n', 1, /image is missing/],
  ['mayfly: 1\nname: hello\nprogram: bash\n', 3, /absolute path/],
  ['mayfly: 1\nname: &a hello\nhandler: *a\n', 3, /aliases and tags are not read/],
  ['mayfly: [1\n', 1, /not valid YAML/],
];

for (const [text, line, words] of mistakes) {
  test(`a mistake is found where it is: ${String(words)}`, () => {
    const { manifest, problems } = parse(text);
    assert.equal(manifest, undefined);
    const found = problems.find(({ message }) => words.test(message));
    assert.ok(found, JSON.stringify(problems));
    if (!/YAML/.test(String(words))) assert.equal(found.line, line);
  });
}

test('property: what the parser takes, the schema takes; and any text ends in problems or a manifest', () => {
  const some = <T>(...values: readonly T[]): fc.Arbitrary<T | undefined> => {
    return fc.oneof(
      { weight: 5, arbitrary: fc.constant(undefined) },
      { weight: 1, arbitrary: fc.constantFrom(...values) },
    );
  };
  const quantity = fc.constantFrom('64M', '128M', '128M', '5s', 12, 'lots', true);
  const anyLimits = fc.dictionary(fc.constantFrom(...Object.keys(manifestLimits), 'other'), quantity, { maxKeys: 3 });
  const document = fc.record({
    mayfly: fc.constantFrom(1, 1, 1, 2),
    name: fc.constantFrom('a', 'a-b', 'c', 'A', '-a'),
    handler: fc.constantFrom('h.mjs', 'h.py', 'h.js', '/h.mjs', 'h.x', undefined),
    exec: some('run', '../run'),
    image: some('node', ''),
    limits: fc.option(anyLimits, { nil: undefined, freq: 2 }),
    floor: some({ pids: 3 }, { x: 1 }),
    network: some<unknown>(['a.example:443'], [], 'x', { mode: 'none' }),
    concurrency: some(0, 1, 256, 257),
    warm: some(-1, 0, 32, 33),
    env: some<object>({ A: 'x', B_1: 1 }, { C: true }, { '1D': 'x' }),
    retry: some({ attempts: 0 }, { attempts: 10, afterDelivery: true }, { attempts: 11 }),
  });
  let taken = 0;
  fc.assert(fc.property(document, (value) => {
    const clean = JSON.parse(JSON.stringify(value)) as object;
    const { manifest, problems } = parse(JSON.stringify(clean));
    assert.equal(manifest === undefined, problems.length > 0);
    if (manifest === undefined) return;
    taken++;
    assert.ok(fits(clean), JSON.stringify([clean, fits.errors]));
  }), { numRuns: 3000 });
  assert.ok(taken > 100, `only ${taken} manifests were good`);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
    const { manifest, problems } = parseManifest('m', Buffer.from(bytes));
    assert.ok(manifest !== undefined || problems.length > 0);
  }), { numRuns: 500 });
});

test('E7: names can be no path', () => {
  for (const name of ['', '.', '..', 'a/b', 'a.b', '../a', 'a\0', '-a', 'a-', 'A', 'a'.repeat(64)]) {
    assert.equal(isServiceName(name), false, name);
  }
  for (const name of ['a', '0', 'a-b', 'a'.repeat(63)]) assert.ok(isServiceName(name));
});
