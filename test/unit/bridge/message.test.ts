/**
 * Goal: every message of the table survives encode and decode, and nothing outside the table does.
 * Method: values are generated from the table itself; bytes are damaged at random.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import { ProtocolError } from '../../../src/bridge/frame.ts';
import { decodeMessage, encodeMessage, messages } from '../../../src/bridge/message.ts';
import type { Message, MessageName } from '../../../src/bridge/message.ts';
import { limits } from '../../../src/core/limits.ts';

interface Shape {
  readonly kind: 'u64' | 'nanos' | 'str' | 'bytes';
  readonly repeat?: true;
  readonly max?: number;
  readonly length?: number;
}

const text = fc.string({ unit: 'binary', maxLength: 40 })
  .map((value) => value.replaceAll('\0', '').toWellFormed());

function arbitraryValue({ kind, max = Number.MAX_SAFE_INTEGER, length }: Shape): fc.Arbitrary<unknown> {
  switch (kind) {
    case 'u64':
      return fc.oneof(fc.constantFrom(0, max), fc.integer({ min: 0, max }));
    case 'nanos':
      return fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    case 'str':
      return text;
    case 'bytes':
      return fc.uint8Array({ minLength: length ?? 0, maxLength: length ?? 100 }).map((bytes) => Buffer.from(bytes));
  }
}

function arbitraryFields(name: MessageName): fc.Arbitrary<unknown> {
  const shapes = Object.entries<Shape>(messages[name].fields).map(([field, shape]) => {
    const value = arbitraryValue(shape);
    return [field, shape.repeat === true ? fc.array(value, { maxLength: 20 }) : value] as const;
  });
  return fc.record(Object.fromEntries(shapes), { noNullPrototype: true });
}

const names = Object.keys(messages) as MessageName[];

for (const name of names) {
  test(`${name}: decoding what was encoded gives the same fields`, () => {
    fc.assert(fc.property(arbitraryFields(name), (fields) => {
      const payload = encodeMessage(name, fields as Message<typeof name>);
      assert.deepEqual(decodeMessage(messages[name].type, payload), { name, fields });
    }));
  });

  test(`${name}: damaged bytes give a message of the table or a violation, nothing else`, () => {
    fc.assert(fc.property(arbitraryFields(name), fc.nat(), fc.nat(255), fc.nat(), (fields, where, value, cut) => {
      const payload = encodeMessage(name, fields as Message<typeof name>);
      if (payload.length > 0) payload.writeUInt8(value, where % payload.length);
      const damaged = payload.subarray(0, payload.length - (cut % (payload.length + 1)));
      try {
        const decoded = decodeMessage(messages[name].type, damaged);
        assert.deepEqual(Object.keys(decoded.fields).sort(), Object.keys(messages[name].fields).sort());
      } catch (thrown) {
        assert.ok(thrown instanceof ProtocolError, String(thrown));
      }
    }));
  });
}

test('types and tags of the table are unique, and every tag fits', () => {
  assert.equal(new Set(names.map((name) => messages[name].type)).size, names.length);
  for (const name of names) {
    const tags = Object.values<{ tag: number }>(messages[name].fields).map(({ tag }) => tag);
    assert.deepEqual([...new Set(tags)], tags, name);
    assert.deepEqual(tags, tags.map((_, at) => at + 1), `${name}: tags are numbered in order`);
  }
});

test('the table of docs/FORMATS.md and this one are the same', async () => {
  const formats = await readFile(new URL('../../../docs/FORMATS.md', import.meta.url), 'utf8');
  for (const name of names) {
    const type = `0x${messages[name].type.toString(16).padStart(2, '0')}`;
    const row = formats.split('\n').find((line) => line.startsWith(`| ${type} | ${name} |`));
    assert.ok(row !== undefined, `${name} is not in docs/FORMATS.md`);
    const pattern = /(?:^|[|·] )(\d+) (\w+)(\*?) (u64|str|bytes)/g;
    const documented = [...row.matchAll(pattern)].map((match) => match.slice(1, 5));
    const coded = Object.entries<Shape & { tag: number }>(messages[name].fields).map(([field, shape]) =>
      [String(shape.tag), field, shape.repeat === true ? '*' : '', shape.kind === 'nanos' ? 'u64' : shape.kind]);
    assert.deepEqual(documented, coded, name);
  }
});

test('fields may come in any order, lists keep theirs', () => {
  const fields: Message<'FAULT'> = { code: 'E_X', message: 'm' };
  const payload = encodeMessage('FAULT', fields);
  const first = 6 + Buffer.byteLength(fields.code);
  const swapped = Buffer.concat([payload.subarray(first), payload.subarray(0, first)]);
  assert.deepEqual(decodeMessage(messages.FAULT.type, swapped), { name: 'FAULT', fields });
});

test('names of object properties are only values: nothing of the peer becomes a key', () => {
  const payload = encodeMessage('PROOF', { fact: ['__proto__=1', 'constructor=2'] });
  const decoded = decodeMessage(messages.PROOF.type, payload);
  assert.deepEqual(decoded, { name: 'PROOF', fields: { fact: ['__proto__=1', 'constructor=2'] } });
  assert.equal(({} as Record<string, unknown>)['1'], undefined);
});

test('a byte order mark and other odd text arrive as they were sent', () => {
  const odd = ['\ufeffbom', '\u202e', '🪰', 'e\u0301', '\x7f', '\ufffd'];
  const decoded = decodeMessage(messages.PROOF.type, encodeMessage('PROOF', { fact: odd }));
  assert.deepEqual(decoded.fields, { fact: odd });
});

test('encodeMessage refuses what the other side would refuse', () => {
  const fault = { code: 'E', message: 'm' };
  assert.throws(() => encodeMessage('FAULT', { ...fault, message: 'a\0' }), RangeError);
  assert.throws(() => encodeMessage('FAULT', { ...fault, message: '\ud800' }), RangeError);
  assert.throws(() => encodeMessage('FAULT', { ...fault, message: 'x'.repeat(limits.fieldBytesMax + 1) }), RangeError);
  assert.throws(() => encodeMessage('READY', { warm: 2 }), RangeError);
  assert.throws(() => encodeMessage('READY', { warm: 0.5 }), RangeError);
  assert.throws(() => encodeMessage('READY', { warm: -1 }), RangeError);
  assert.throws(() => encodeMessage('READY', {} as Message<'READY'>), RangeError);
  assert.throws(() => encodeMessage('PROOF', { fact: Array.from({ length: 513 }, () => '') }), RangeError);
  const long = 'x'.repeat(30_000);
  assert.throws(() => encodeMessage('PROOF', { fact: [long, long, long] }), RangeError);
});
