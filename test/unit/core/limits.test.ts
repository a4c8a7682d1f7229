/**
 * Goal: limits are numbers that can bound something, are documented, are used, and do not contradict each other. The
 * relations that core/limits.ts asserts when it is loaded are joined here by those that need other modules to be seen.
 */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { limits } from '../../../src/core/limits.ts';

const root = join(import.meta.dirname, '../../..');

test('every limit is a positive whole number, and none can be changed', () => {
  for (const [name, value] of Object.entries(limits)) assert.ok(Number.isSafeInteger(value) && value > 0, name);
  assert.ok(Object.isFrozen(limits));
});

test('every limit has a comment that says why, or shares one with the limit above it', () => {
  const lines = readFileSync(join(root, 'src/core/limits.ts'), 'utf8').split('\n');
  const isLimit = (line: string): boolean => /^ {2}\w+: .*,$/.test(line);
  lines.forEach((line, index) => {
    if (!isLimit(line)) return;
    const above = lines[index - 1] ?? '';
    assert.ok(above.includes('*/') || isLimit(above), `limits.ts:${index + 1}: ${line.trim()}`);
  });
});

test('every limit bounds something', () => {
  const product = globSync('{src,scripts}/**/*.ts', { cwd: root })
    .filter((file) => file !== 'src/core/limits.ts')
    .map((file) => readFileSync(join(root, file), 'utf8'))
    .join('\n');
  const used = new Set([...product.matchAll(/\b\w+\b/g)].map(([word]) => word));
  assert.deepEqual(Object.keys(limits).filter((name) => !used.has(name)), []);
});

test('limits that meet agree', () => {
  const relations: readonly (readonly [keyof typeof limits, keyof typeof limits])[] = [
    ['eventBytesMax', 'memoryBytesMin'],
    ['outputBytesMax', 'memoryBytesMin'],
    ['stdoutBytesMax', 'outputBytesMax'],
    ['stderrTailBytes', 'stderrBytesMax'],
    ['envelopeBytes', 'runtimeOutputFloorBytes'],
    ['frameHeaderBytes', 'framePayloadBytesMax'],
    ['codePathBytesMax', 'fieldBytesMax'],
    ['scratchBytesDefault', 'scratchBytesMax'],
    ['scratchBytesMax', 'memoryBytesMax'],
    ['pidsDefault', 'pidsMax'],
    ['openFilesDefault', 'openFilesMax'],
    ['cpuQuotaMicrosMin', 'cpuPeriodMicros'],
    ['adoptMillisMax', 'configureMillisMax'],
    ['trialBootMillisMax', 'bootMillisMax'],
    ['frameMillisMax', 'configureMillisMax'],
  ];
  for (const [less, more] of relations) assert.ok(limits[less] <= limits[more], `${less} <= ${more}`);
});

test('what the agent is compiled with is what the host allows', () => {
  const header = readFileSync(join(root, 'guest/agent/frame.h'), 'utf8');
  const compiled = (name: string): number => {
    const value = new RegExp(`\\b${name} = ([0-9 *]+),`).exec(header)?.[1];
    assert.ok(value !== undefined, `frame.h has ${name}`);
    return value.split('*').reduce((product, factor) => product * Number(factor), 1);
  };
  assert.equal(compiled('FRAME_PAYLOAD_MAX'), limits.framePayloadBytesMax);
  assert.equal(compiled('FIELD_BYTES_MAX'), limits.fieldBytesMax);
  assert.equal(compiled('FIELDS_MAX'), limits.fieldsMax);
});
