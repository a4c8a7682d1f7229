/**
 * Goal: an output comes out only if it keeps its contract, whatever a function hides in it and however a schema was
 * made to stall (F5). Method: outputs and schemas of an attacker; every one has a defined result, in a bounded time.
 */
import assert from 'node:assert/strict';
import { performance } from 'node:perf_hooks';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { limits } from '../../../src/core/limits.ts';
import type { Clock } from '../../../src/core/time.ts';
import type { OutputContract } from '../../../src/validate/contract.ts';
import { examineOutput } from '../../../src/validate/examine.ts';
import { neutralise } from '../../../src/validate/neutral.ts';
import type { Validation } from '../../../src/validate/output.ts';
import { compileSchema } from '../../../src/validate/schema-compile.ts';
import { SchemaChecker } from '../../../src/validate/schema.ts';
import { findSecrets } from '../../../src/validate/secrets.ts';

const clock: Clock = {
  now: () => performance.now(),
  wallNanos: () => 0n,
  after(millis, fire) {
    const timer = setTimeout(fire, millis);
    return () => clearTimeout(timer);
  },
};
const opened: SchemaChecker[] = [];
after(async () => { for (const checker of opened) await checker.close(); });

async function schema(value: unknown): Promise<SchemaChecker> {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  const checker = await SchemaChecker.open(Buffer.from(text), clock);
  opened.push(checker);
  return checker;
}

const checkOf = (value: unknown): ReturnType<typeof compileSchema> => compileSchema(Buffer.from(JSON.stringify(value)));

async function examine(output: string | Buffer, contract: OutputContract = {}, raw = false): Promise<Validation> {
  const bytes = Buffer.from(output);
  const digest = { digest: 'sha256:1', bytes: bytes.length };
  const examined = await examineOutput({ verdict: { kind: 'accepted' }, output: bytes, digest }, contract, raw);
  assert.deepEqual(examined.digest, digest, 'the digest stays, whatever becomes of the output');
  assert.equal(examined.output === undefined, examined.verdict.kind !== 'accepted');
  return examined;
}

async function codeOf(output: string | Buffer, contract: OutputContract = {}, raw = false): Promise<string> {
  const { verdict } = await examine(output, contract, raw);
  return verdict.kind === 'accepted' ? 'accepted' : verdict.code;
}

async function notesOf(output: string, contract: OutputContract = {}): Promise<string[]> {
  const { verdict } = await examine(output, contract);
  assert.ok(verdict.kind === 'accepted', JSON.stringify(verdict));
  return (verdict.notes ?? []).map(({ check }) => check);
}

// ---- numbers and keys -----------------------------------------------------------------------------------------------

test('1e400 has no reader; __proto__ is data and noted; other JSON comes out as it is', async () => {
  assert.equal(await codeOf('{"a":[1e400]}'), 'E_OUTPUT_INVALID');
  assert.equal(await codeOf('-1e999'), 'E_OUTPUT_INVALID');
  assert.deepEqual(await notesOf('{"a":{"__proto__":{"admin":true}}}'), ['key']);
  assert.deepEqual(await notesOf('[{"constructor":1}]'), ['key']);
  assert.equal(String((await examine('{"n":12345678901234567890}')).output), '{"n":12345678901234567890}');
  assert.deepEqual(await notesOf('null'), []);
});

// ---- schema ---------------------------------------------------------------------------------------------------------

test('a schema decides, in words without values', async () => {
  const checker = await schema({
    type: 'object', required: ['total'], additionalProperties: false,
    properties: { total: { type: 'integer', minimum: 0 }, name: { $ref: '#/$defs/name' } },
    $defs: { name: { type: 'string', pattern: '^[a-z]+$' } },
  });
  assert.equal(await codeOf('{"total":3,"name":"abc"}', { schema: checker }), 'accepted');
  for (const [output, said] of [
    ['{"total":-1}', /\/total must be >= 0/], ['{}', /required property 'total'/],
    ['{"total":1,"x\\u001b[2J":"secret value"}', /additional properties: x/],
    ['{"total":1,"name":"A"}', /\/name must match/],
  ] as const) {
    const { verdict } = await examine(output, { schema: checker });
    assert.ok(verdict.kind === 'withheld' && verdict.code === 'E_OUTPUT_SCHEMA');
    assert.match(verdict.message, said);
    assert.doesNotMatch(verdict.message, /secret value|\u001b/);
  }
});

test('draft 2020-12: prefixItems, unevaluatedProperties, and references within the document', () => {
  const check = checkOf({
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    prefixItems: [{ const: 1 }], items: { type: 'object', unevaluatedProperties: false, properties: { a: true } },
  });
  assert.equal(check([1, { a: 2 }]), undefined);
  assert.match(check([1, { b: 2 }]) ?? '', /unevaluated properties: b/);
  assert.match(check([2]) ?? '', /must be equal to constant/);
});

test('schemas that cannot be used are refused before anything runs', async () => {
  const deep = `${'{"not":'.repeat(100)}true${'}'.repeat(100)}`;
  for (const [text, said] of [
    ['{"$ref":"https://example.com/s.json"}', /leads out of the schema/],
    ['{"$ref":"other.json#/a"}', /leads out/],
    ['{"$dynamicRef":"file:///etc/passwd"}', /leads out/],
    ['{"$ref":"#/$defs/none"}', /resolve/],
    ['{"pattern":"(?=a)b"}', /not valid RE2/],
    ['{"pattern":"(a)\\\\1"}', /not valid RE2/],
    [`{"pattern":"${'a'.repeat(2000)}"}`, /longer than/],
    ['{"type":"strnig"}', /schema is invalid/],
    ['[1]', /a schema is an object/], ['"x"', /a schema is an object/], ['{"a":', /not usable JSON/],
    ['{"type":"object","type":"array"}', /duplicate/], [deep, /depth/],
    [JSON.stringify({ enum: Array.from({ length: 30_000 }, () => ({})) }), /more than \d+ parts/],
    [`"${'x'.repeat(limits.schemaBytesMax)}"`, /size/],
  ] as const) {
    assert.throws(() => compileSchema(Buffer.from(text)), (thrown: Error) => {
      assert.match(thrown.message, said, text.slice(0, 60));
      return true;
    });
  }
  await assert.rejects(SchemaChecker.open(Buffer.from('[1]'), clock), { code: 'E_SCHEMA_INVALID' });
});

test('a hostile pattern is linear, a reference that leads to itself ends, and what stalls is ended', async () => {
  const from = performance.now();
  assert.match(checkOf({ pattern: '^(a+)+$' })(`${'a'.repeat(50_000)}!`) ?? '', /must match pattern/);
  assert.match(checkOf({ $ref: '#' })(1) ?? '', /could not be applied/);
  // Each level tries its two alternatives, and each of them the whole rest: 2^100 steps.
  const again = { properties: { a: { $ref: '#' } } };
  const stalling = await schema({ oneOf: [again, again, { type: 'number' }] });
  const nested = `${'{"a":'.repeat(100)}1${'}'.repeat(100)}`;
  const { verdict } = await examine(nested, { schema: stalling });
  assert.ok(verdict.kind === 'withheld' && verdict.code === 'E_OUTPUT_SCHEMA');
  assert.match(verdict.message, /took more than/);
  assert.equal(await codeOf('1', { schema: stalling }), 'E_OUTPUT_SCHEMA', 'and it is not asked again');
  assert.ok(performance.now() - from < limits.schemaStartMillisMax + 4 * limits.schemaCheckMillisMax);
});

// ---- secrets --------------------------------------------------------------------------------------------------------

const SECRET = 'hunter2-Zürich/+&"key';
const encodings: readonly (readonly [string, (text: string) => string])[] = [
  ['plain', (text) => text], ['base64', (text) => Buffer.from(text).toString('base64')],
  ['base64url', (text) => Buffer.from(text).toString('base64url')],
  ['hex', (text) => Buffer.from(text).toString('hex')],
  ['HEX', (text) => Buffer.from(text).toString('hex').toUpperCase()], ['url', encodeURIComponent],
  ['url, every byte', (text) => Buffer.from(text).toString('hex').replace(/../g, '%$&')],
  ['reversed', (text) => [...text].reverse().join('')],
  ['reversed base64', (text) => Buffer.from([...text].reverse().join('')).toString('base64')],
];

test('a secret is found in every encoding, inside of longer text, and in escaped JSON', async () => {
  const contract = { secrets: new Map([['database', SECRET]]) };
  for (const [name, encode] of encodings) {
    for (const around of ['', 'x', 'xy', 'xyz']) {
      const text = `${around}${name.includes('base64') ? '' : around}${encode(SECRET)}${around}`;
      assert.equal(await codeOf(JSON.stringify({ text }), contract), 'E_OUTPUT_SECRET', `${name} ${around}`);
      if (!name.includes('base64')) continue;
      const inside = Buffer.from(around + (name.startsWith('rev') ? [...SECRET].reverse().join('') : SECRET) + around);
      const form = name === 'base64url' ? 'base64url' : 'base64';
      assert.equal(await codeOf(JSON.stringify({ text: inside.toString(form) }), contract), 'E_OUTPUT_SECRET', around);
    }
  }
  const escaped = [...SECRET].map((char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`).join('');
  assert.equal(await codeOf(`{"a":"${escaped}"}`, contract), 'E_OUTPUT_SECRET');
  assert.equal(await codeOf(`{"${escaped}":1}`, contract), 'E_OUTPUT_SECRET', 'as a key');
  assert.equal(await codeOf('{"a":"hunter2-Zürich"}', contract), 'accepted', 'not all of it');
  const { verdict } = await examine(JSON.stringify(SECRET), contract);
  assert.ok(verdict.kind === 'withheld');
  assert.ok(!verdict.message.includes('hunter2') && verdict.message.includes('database'));
});

test('property: a secret in base64 is found whatever stands before and after it', () => {
  const any = fc.uint8Array({ maxLength: 7 });
  fc.assert(fc.property(fc.uint8Array({ minLength: 6, maxLength: 40 }), any, any, (bytes, before, after) => {
    const secret = Buffer.from(bytes).toString('hex').slice(0, 20).padEnd(6, 'q');
    const text = Buffer.concat([before, Buffer.from(secret), after]).toString('base64');
    assert.equal(findSecrets([Buffer.from(text)], new Map([['s', secret]])).length, 1);
  }));
});

test('canaries withhold; what looks like a credential is noted, or withheld when asked for', async () => {
  assert.equal(await codeOf('{"a":"--canary-7f3a--"}', { canaries: ['canary-7f3a'] }), 'E_OUTPUT_SECRET');
  const parts = [
    ['AKIA', 'IOSFODNN7EXAMPLE'], ['ghp_', 'a'.repeat(36)], ['-----BEGIN RSA ', 'PRIVATE KEY-----'],
    ['xoxb-', '1234567890-abc'], ['postgres://user:', 'password@db/x'], ['sk_live_', '0'.repeat(24)],
  ];
  for (const [head = '', rest = ''] of parts) {
    const output = JSON.stringify({ text: `see ${head}${rest} here` });
    assert.deepEqual(await notesOf(output), ['credential'], head);
    assert.equal(await codeOf(output, { credentials: 'withhold' }), 'E_OUTPUT_SECRET', head);
  }
  assert.deepEqual(await notesOf('{"text":"https://example.com/a:b and AKIA alone"}'), []);
});

// ---- types ----------------------------------------------------------------------------------------------------------

test('a raw output is of an allowed type by its bytes, and not of the one that it claims', async () => {
  const png = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAAB'
    + 'JRU5ErkJggg==', 'base64');
  const elf = Buffer.from('\u007fELF\u0002\u0001\u0001\u0000'.padEnd(64, '\0'), 'latin1');
  const types = ['image/*', 'text/plain'];
  assert.equal(await codeOf(png, { types }, true), 'accepted');
  assert.equal(await codeOf('plain words', { types }, true), 'accepted');
  assert.equal(await codeOf('<html><script>alert(1)</script>', { types }, true), 'E_OUTPUT_TYPE');
  assert.equal(await codeOf(elf, { types }, true), 'E_OUTPUT_TYPE');
  assert.equal(await codeOf('MZ\0\0', { declaredType: 'image/png' }, true), 'E_OUTPUT_TYPE');
  assert.equal(await codeOf(png, { declaredType: 'image/png' }, true), 'accepted');
});

// ---- hooks ----------------------------------------------------------------------------------------------------------

test('indicators and validators withhold, and one that fails withholds too', async () => {
  const listed = async (): Promise<string[]> => ['domain evil.example, listed by feed'];
  assert.equal(await codeOf('1', { indicators: listed }), 'E_OUTPUT_INDICATOR');
  assert.equal(await codeOf('1', { indicators: async () => [] }), 'accepted');
  assert.equal(await codeOf('1', { indicators: () => Promise.reject(new Error('no index')) }), 'E_OUTPUT_INVALID');
  const refusal = { accept: false, reason: 'bad\u001b[2J' };
  const validator = async (): Promise<typeof refusal> => refusal;
  const { verdict } = await examine('1', { validator });
  assert.ok(verdict.kind === 'withheld' && verdict.code === 'E_OUTPUT_REJECTED');
  assert.doesNotMatch(verdict.message, /\u001b/);
  assert.equal(await codeOf('1', { validator: () => Promise.reject(new Error('it died')) }), 'E_OUTPUT_REJECTED');
});

// ---- neutralisation -------------------------------------------------------------------------------------------------

test('HTML, ANSI and formulas are made harmless where that is asked for, and only texts change', async () => {
  const output = '{ "n": 1e2, "a": "<img src=x onerror=alert(1)>", "b": "\\u001b]0;t\\u0007ok\\u001b[31m", '
    + '"c": "=cmd|\' /C calc\'!A0", "d": "-5" }';
  const { output: given, verdict } = await examine(output, { neutralise: ['html', 'ansi', 'csv'] });
  assert.equal(String(given), '{ "n": 1e2, "a": "&lt;img src=x onerror=alert(1)&gt;", "b": "ok", '
    + '"c": "\'=cmd|&#39; /C calc&#39;!A0", "d": "-5" }');
  assert.ok(verdict.kind === 'accepted' && verdict.notes?.some(({ check }) => check === 'neutralised'));
  assert.equal(neutralise('a,=1+1,"@x"\n-1,+2,\t=3', 'text', ['csv']), 'a,\'=1+1,"\'@x"\n-1,+2,\t\'=3');
  assert.equal(await codeOf(Buffer.from([0xff, 0xfe]), { neutralise: ['html'] }, true), 'E_OUTPUT_TYPE');
  assert.equal(String((await examine('{"a":"calm"}', { neutralise: ['html'] })).output), '{"a":"calm"}');
});

test('property: neutralised JSON is JSON of the same shape', () => {
  const shape = (value: unknown): unknown => {
    if (typeof value === 'string') return '';
    if (typeof value !== 'object' || value === null) return value;
    return Array.isArray(value) ? value.map(shape) : Object.values(value).map(shape);
  };
  fc.assert(fc.property(fc.json(), (text) => {
    const after = neutralise(text, 'json', ['html', 'ansi']);
    assert.deepEqual(shape(JSON.parse(after)), shape(JSON.parse(text)));
  }));
});

test('two keys that become one are not given out', async () => {
  assert.equal(await codeOf('{"<":1,"&lt;":2}', { neutralise: ['html'] }), 'accepted');
  assert.equal(await codeOf('{"a\\u0007":1,"a":2}', { neutralise: ['ansi'] }), 'E_OUTPUT_TYPE');
});
