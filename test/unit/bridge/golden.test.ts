/**
 * Goal: the format on disk, in the C agent's tests and in this codec is one format.
 * Method: every golden file must be what the codec makes now and decode to its description; every truncation of every
 * file must be understood as "more to come" or refused, and never decode to something else.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { FrameDecoder, ProtocolError } from '../../../src/bridge/frame.ts';
import { decodeMessage, messages } from '../../../src/bridge/message.ts';
import { cases, describe, indexOf } from '../../golden/cases.ts';
import type { GoldenCase } from '../../golden/cases.ts';

const folder = new URL('../../golden/frames/', import.meta.url);
const read = (name: string): Buffer => readFileSync(new URL(name, folder));

test('golden files are exactly those that the generator writes', () => {
  const expected = cases.flatMap(({ name }) => [`${name}.bin`, `${name}.json`]);
  assert.deepEqual(readdirSync(folder).sort(), [...expected, 'index.tsv'].sort());
  assert.equal(read('index.tsv').toString(), indexOf(cases));
});

for (const each of cases) {
  test(`golden ${each.name}: same bytes, same meaning`, () => {
    const bytes = read(`${each.name}.bin`);
    assert.ok(bytes.equals(each.bytes), 'the codec makes other bytes now');
    assert.equal(describe({ ...each, bytes }), read(`${each.name}.json`).toString());
  });
}

test('golden files cover every message type and refuse what their names say', () => {
  const types = new Set<number>();
  for (const { name, ...each } of cases) {
    const { violation, frames } = JSON.parse(describe(each)) as { violation: string; frames: { type: number }[] };
    if (name.startsWith('bad-')) assert.ok(name.startsWith(`bad-${violation}`), `${name}: ${violation}`);
    else assert.equal(violation, 'none', name);
    for (const { type } of frames) types.add(type);
  }
  for (const { type } of Object.values(messages)) assert.ok(types.has(type), `no golden file of type ${type}`);
});

/** Frames and violation of bytes that arrive in two chunks; the second one may be missing. */
function decodeCut({ from, nonce }: GoldenCase, chunks: readonly Buffer[]): string[] {
  const decoder = new FrameDecoder({ from, nonce });
  const found: string[] = [];
  try {
    for (const chunk of chunks) {
      for (const { type, sequence, stream, payload } of decoder.push(chunk)) {
        if (stream === 0) decodeMessage(type, payload);
        found.push(`${type} ${sequence} ${stream} ${payload.toString('latin1')}`);
      }
    }
    return [...found, decoder.midFrame ? 'more' : 'done'];
  } catch (thrown) {
    assert.ok(thrown instanceof ProtocolError, String(thrown));
    return [...found, thrown.violation];
  }
}

/** All cuts of small files, and of large ones those near their ends and a spread between. */
function cutsOf(length: number): number[] {
  const all = Array.from({ length: length + 1 }, (_, at) => at);
  return length <= 4096 ? all : all.filter((at) => at < 300 || at > length - 300 || at % 1021 === 0);
}

test('D2: every truncation of every golden file waits or refuses, and the rest completes it', () => {
  for (const each of cases) {
    const whole = decodeCut(each, [each.bytes]);
    for (const at of cutsOf(each.bytes.length)) {
      const head = each.bytes.subarray(0, at);
      const cut = decodeCut(each, [head]);
      assert.ok(cut.length <= whole.length, `${each.name} cut at ${at}`);
      const verdict = cut.pop() ?? '';
      assert.deepEqual(cut, whole.slice(0, cut.length), `${each.name} cut at ${at}: frames that are not in the whole`);
      assert.ok(['more', 'done', whole.at(-1)].includes(verdict), `${each.name} cut at ${at}: ${verdict}`);
      assert.deepEqual(decodeCut(each, [head, each.bytes.subarray(at)]), whole, `${each.name} cut at ${at}`);
    }
  }
});
