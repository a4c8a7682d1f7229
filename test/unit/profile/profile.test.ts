/** Goal: a profile is a pure function of its request, frozen, fully reasoned, and only an equal proof passes it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MayflyError } from '../../../src/core/errors.ts';
import { canonicalJson, digestOf } from '../../../src/core/json.ts';
import { limits } from '../../../src/core/limits.ts';
import { compareFacts, expectedFacts } from '../../../src/profile/facts.ts';
import { generateProfile, ramClasses } from '../../../src/profile/generate.ts';
import type { ProfileRequest, RequestedLimits } from '../../../src/profile/request.ts';

const MiB = 1024 * 1024;

function request(wanted: RequestedLimits = {}): ProfileRequest {
  return { image: { name: 'node', digest: `sha256:${'a'.repeat(64)}` }, limits: wanted, minimumIsolation: 'tcg' };
}

const anyLimits: fc.Arbitrary<RequestedLimits> = fc.record(
  {
    memoryBytes: fc.integer({ min: limits.memoryBytesMin, max: limits.memoryBytesMax }),
    wallMillis: fc.integer({ min: 1, max: limits.wallMillisMax }),
    pids: fc.integer({ min: 1, max: limits.pidsMax }),
    scratchBytes: fc.integer({ min: MiB, max: limits.scratchBytesMax }),
    outputBytes: fc.integer({ min: 1, max: limits.outputBytesMax }),
  },
  { requiredKeys: [] },
);

test('property: same input, same digest; the digest is that of the canonical profile', () => {
  fc.assert(fc.property(anyLimits, fc.integer({ min: 0, max: limits.codeBytesMax }), (wanted, codeBytes) => {
    const one = generateProfile({ request: request(wanted), codeBytes });
    const two = generateProfile({ request: request(wanted), codeBytes });
    assert.deepEqual(one, two);
    assert.equal(one.digest, digestOf(canonicalJson(one.profile)));
    for (const [name, value] of Object.entries(wanted)) {
      const granted = (one.profile.limits as unknown as Record<string, number>)[name] ?? Number.NaN;
      if (name === 'memoryBytes') assert.ok(granted <= value && granted > value - 4096 && granted % 4096 === 0);
      else if (name === 'scratchBytes') assert.ok(granted >= value && granted % 4096 === 0);
      else assert.equal(granted, value);
    }
  }));
});

test('property: the VM holds workload, guest and code, in one of few sizes', () => {
  fc.assert(fc.property(anyLimits, fc.integer({ min: 0, max: limits.codeBytesMax }), (wanted, codeBytes) => {
    const { shape, limits: granted } = generateProfile({ request: request(wanted), codeBytes }).profile;
    assert.ok(shape.ramBytes >= granted.memoryBytes + limits.guestOverheadBytes + codeBytes);
    assert.ok(ramClasses.includes(shape.ramBytes));
    assert.ok(granted.scratchBytes >= (wanted.scratchBytes ?? limits.scratchBytesDefault) + codeBytes);
  }));
});

test('the default is the smallest class', () => {
  assert.equal(generateProfile({ request: request(), codeBytes: 1000 }).profile.shape.ramBytes, 448 * MiB);
});

test('everything is frozen', () => {
  const { profile } = generateProfile({ request: request(), codeBytes: 0 });
  assert.throws(() => Object.assign(profile.limits, { memoryBytes: 1 }), TypeError);
  assert.throws(() => (profile.kernel.capabilities as string[]).push('CAP_SYS_ADMIN'), TypeError);
});

test('every field has a reason, and every reason a field', () => {
  const { profile, reasons } = generateProfile({ request: request({ pids: 5 }), codeBytes: 1 });
  const covered = reasons.map(({ field }) => field);
  const leaves = (value: unknown, path: string): string[] =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.entries(value).flatMap(([key, item]) => leaves(item, path === '' ? key : `${path}.${key}`))
      : [path];
  for (const leaf of leaves(profile, '')) {
    if (leaf === 'profileVersion') continue;
    assert.ok(covered.some((field) => leaf === field || leaf.startsWith(`${field}.`)), `no reason for ${leaf}`);
  }
  assert.deepEqual(reasons.find(({ field }) => field === 'limits.pids')?.because, 'requested (--pids)');
  assert.deepEqual(reasons.find(({ field }) => field === 'limits.memoryBytes')?.because, 'default');
});

test('a limit out of its bounds is refused with the bounds and the flag', () => {
  const refuse = (wanted: RequestedLimits): MayflyError => {
    try {
      generateProfile({ request: request(wanted), codeBytes: 0 });
    } catch (thrown) {
      assert.ok(thrown instanceof MayflyError);
      return thrown;
    }
    assert.fail(`accepted ${JSON.stringify(wanted)}`);
  };
  const error = refuse({ memoryBytes: 8 * 1024 * MiB });
  assert.equal(error.code, 'E_LIMIT_INVALID');
  assert.match(error.message, /8192 MiB.*96 MiB to 4096 MiB.*--memory/);
  const more = [{ memoryBytes: 1 }, { wallMillis: 0 }, { wallMillis: 1.5 }, { pids: Number.NaN }, { pids: -1 }];
  for (const wanted of more) refuse(wanted);
});

const { profile } = generateProfile({ request: request(), codeBytes: 0 });
const expected = expectedFacts(profile, Buffer.from('policy'));

test('an equal proof, in any order, has no differences', () => {
  assert.deepEqual(compareFacts(expected, expected.toReversed()), []);
});

test('property: one fact changed, missing, added or twice is always a difference', () => {
  fc.assert(fc.property(fc.nat({ max: expected.length - 1 }), fc.string(), (index, text) => {
    const fact = expected[index] ?? '';
    const name = fact.slice(0, fact.indexOf('='));
    const changed = expected.with(index, `${name}=${text}`);
    if (changed[index] !== fact) assert.equal(compareFacts(expected, changed).length, 1);
    assert.equal(compareFacts(expected, expected.toSpliced(index, 1)).length, 1);
    assert.equal(compareFacts(expected, [...expected, fact]).length, 1);
    assert.ok(compareFacts(expected, [...expected, `x.${text}`]).length >= 1);
  }));
});

test('differences are readable and safe to print', () => {
  const weaker = expected.map((fact) => (fact.startsWith('cgroup.pids.max=') ? 'cgroup.pids.max=\u001b[31mmax' : fact));
  assert.deepEqual(compareFacts(expected, weaker), ['cgroup.pids.max: expected 128, clone reports [31mmax']);
  assert.deepEqual(
    compareFacts(expected, [...expected, 'mount./host=9p rw']),
    ['mount./host: not expected, clone reports 9p rw'],
  );
});

test('a flood of facts is cut short', () => {
  const differences = compareFacts([], Array.from({ length: 100_000 }, (_, index) => `f${index}=1`));
  assert.equal(differences.length, limits.fieldsMax + 1);
});
