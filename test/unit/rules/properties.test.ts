/**
 * Goal: what rules and threat do to a profile is deterministic, the same in any order, never more with more threat, and
 * never more because something failed. Method: random rule sets, threats and orders, through the real loader.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { canonicalJson, digestOf } from '../../../src/core/json.ts';
import { levelOf, threatLevels } from '../../../src/profile/levels.ts';
import { fieldNames, fieldOf, fieldOrders, isStricter, settle } from '../../../src/profile/order.ts';
import type { FieldName, FieldOrder, FieldValue, Wish } from '../../../src/profile/order.ts';
import type { Profile } from '../../../src/profile/profile.ts';
import type { MatchedIndicator } from '../../../src/rules/context.ts';
import { loadRules } from '../../../src/rules/load.ts';
import type { RuleSet } from '../../../src/rules/rule.ts';
import { caseOf, file, profileOf, rulesOf } from './cases.ts';

const anyWish: fc.Arbitrary<Omit<Wish, 'by'>> = fc.constantFrom(...fieldNames).chain((field) => {
  const order: FieldOrder = fieldOrders[field];
  const value: fc.Arbitrary<FieldValue> =
    order.kind === 'ladder' ? fc.constantFrom(...order.steps) : fc.integer({ min: order.min, max: order.max });
  return fc.tuple(value, fc.constantFrom('permit' as const, 'restrict' as const)).map(([chosen, effect]) => ({
    field,
    effect: order.kind === 'ladder' ? ('restrict' as const) : effect,
    value: chosen,
  }));
});

const up = [
  'score >= 10',
  'score > 45',
  'score + event.bytes > 60',
  'level in ["high", "critical"]',
  'level != "low"',
  'indicators.size() > 1',
  'indicators.exists(i, i.severity == "high")',
  'indicators.exists(i, 1 / (i.confidence - 50) > 0)',
  '!(score < 70)',
  'event.data.missing > 1 || score > 30',
  'event.data.missing > 1 && score > 30',
];
const down = [
  'score < 30',
  '!(score >= 55)',
  'level == "low"',
  'level in ["low", "guarded"]',
  'size(indicators) <= 1',
  'indicators.all(i, i.kind == "ip")',
  'score < 50 && indicators.size() == 0 || score < 5',
].filter((text) => !text.includes('== 0'));
const free = [
  'true',
  'event.bytes > 1',
  'event.data.missing == 1',
  'event.type == "mayfly.run"',
  'event.type == "other"',
];

const anyRule: fc.Arbitrary<string> = fc
  .oneof(
    fc.tuple(
      fc.constantFrom(...up, ...free),
      anyWish.filter(({ effect }) => effect === 'restrict'),
    ),
    fc.tuple(
      fc.constantFrom(...down, ...free),
      anyWish.filter(({ effect }) => effect === 'permit'),
    ),
  )
  .map(([when, { field, effect, value }]) => {
    const verb = effect === 'permit' ? 'raise' : fieldOrders[field].kind === 'ladder' ? 'require' : 'lower';
    return `  when: ${JSON.stringify(when)}\n  then: { ${verb}: { ${field}: ${value} } }`;
  });
const scoring = fc
  .tuple(fc.constantFrom(...up, ...free), fc.integer({ min: 1, max: 40 }))
  .map(([when, score]) => `  when: ${JSON.stringify(when)}\n  then: { score: ${score} }`);
const anyRules = fc
  .array(fc.oneof({ weight: 5, arbitrary: anyRule }, scoring), { minLength: 1, maxLength: 12 })
  .map((bodies) => bodies.map((body, index) => `- name: r${index}\n${body}`));

/** Without the errors about effects that can never be: here they are what the property is about. */
function lenient(texts: readonly string[]): RuleSet | undefined {
  const loaded = loadRules([file(`rulesVersion: 1\nrules:\n${texts.join('\n')}`)]);
  const others = loaded.problems.filter(
    ({ severity, message }) => severity === 'error' && !message.includes('can never'),
  );
  assert.deepEqual(others, []);
  return loaded.rules;
}

const anyIndicator: fc.Arbitrary<MatchedIndicator> = fc.record({
  kind: fc.constantFrom('ip', 'domain', 'hash'),
  value: fc.constant('x'),
  source: fc.constant('f'),
  confidence: fc.integer({ min: 49, max: 52 }),
  severity: fc.constantFrom('low', 'high'),
  labels: fc.constant([]),
});

function morePermissive(a: Profile, b: Profile): FieldName[] {
  return fieldNames.filter((field) => isStricter(field, fieldOf(b, field), fieldOf(a, field)));
}

test('property: more threat never yields a more permissive profile', () => {
  const threat = fc.record({
    score: fc.nat({ max: 100 }),
    more: fc.nat({ max: 100 }),
    extra: fc.array(anyIndicator, { maxLength: 3 }),
    indicators: fc.array(anyIndicator, { maxLength: 3 }),
    lift: fc.nat({ max: 4 }),
  });
  fc.assert(
    fc.property(anyRules, threat, (texts, { score, more, indicators, extra, lift }) => {
      const rules = lenient(texts) ?? rulesOf('- name: none\n  when: false\n  then: { score: 1 }');
      const after = Math.min(100, score + more);
      const level = threatLevels[Math.min(4, threatLevels.indexOf(levelOf(after)) + lift)] ?? 'critical';
      const calm = profileOf(caseOf({ threat: { score, level: levelOf(score), indicators } }), rules).profile;
      const tense = profileOf(
        caseOf({ threat: { score: after, level, indicators: [...indicators, ...extra] } }),
        rules,
      ).profile;
      assert.deepEqual(morePermissive(tense, calm), [], texts.join('\n'));
      assert.ok(tense.shape.ramBytes <= calm.shape.ramBytes);
    }),
    { numRuns: 500 },
  );
});

test('property: a threat level takes from a profile and never gives', () => {
  for (const [index, level] of threatLevels.entries()) {
    const one = profileOf(caseOf({ threat: { score: 0, level, indicators: [] } })).profile;
    const calmer = profileOf(
      caseOf({ threat: { score: 0, level: threatLevels[Math.max(0, index - 1)] ?? 'low', indicators: [] } }),
    ).profile;
    assert.deepEqual(morePermissive(one, calmer), [], level);
  }
});

test('property: same input, same profile; the order of rules, files and keys changes nothing', () => {
  fc.assert(
    fc.property(anyRules, fc.nat({ max: 100 }), fc.infiniteStream(fc.nat()), (texts, score, dice) => {
      const rules = lenient(texts);
      if (rules === undefined) return;
      const order = texts
        .map((text) => ({ text, key: dice.next().value }))
        .sort((a, b) => a.key - b.key)
        .map(({ text }) => text);
      const shuffled = lenient(order);
      assert.ok(shuffled !== undefined);
      assert.equal(shuffled.digest, rules.digest);
      const one = caseOf({
        threat: { score, level: levelOf(score), indicators: [] },
        data: { a: 1, b: { c: 2, d: 3 } },
      });
      const other = { ...one, event: Buffer.from('{"b":{"d":3,"c":2},"a":1}') };
      const [first, again, swapped] = [profileOf(one, rules), profileOf(one, rules), profileOf(other, shuffled)];
      assert.deepEqual(first, again);
      assert.equal(first.digest, swapped.digest);
      const reversed = (value: unknown): unknown =>
        typeof value === 'object' && value !== null && !Array.isArray(value)
          ? Object.fromEntries(
              Object.entries(value)
                .reverse()
                .map(([key, item]) => [key, reversed(item)]),
            )
          : value;
      assert.equal(digestOf(canonicalJson(reversed(first.profile))), first.digest);
    }),
    { numRuns: 200 },
  );
});

test('property: settling a field is independent of order, and restriction beats permission', () => {
  fc.assert(
    fc.property(fc.array(anyWish, { maxLength: 8 }), fc.constantFrom(...fieldNames), (wishes, field) => {
      const order: FieldOrder = fieldOrders[field];
      const start = order.kind === 'number' ? order.byDefault : (order.steps[0] ?? '');
      const named = wishes.map((wish, index) => ({ ...wish, by: `r${index}` }));
      const { value, wishes: seen } = settle(field, start, named);
      assert.deepEqual(settle(field, start, named.toReversed()), { value, wishes: seen });
      for (const wish of named) {
        if (wish.field === field && wish.effect === 'restrict') assert.ok(!isStricter(field, wish.value, value));
      }
      const last = seen.findLast(({ overruled }) => !overruled);
      assert.equal(last?.value ?? start, value);
    }),
  );
});

test('property: a failing rule set is never more permissive than no rules at all', () => {
  const failing = fc.array(anyWish, { minLength: 1, maxLength: 6 }).map((wishes) =>
    wishes.map(({ field, effect, value }, index) => {
      const verb = effect === 'permit' ? 'raise' : fieldOrders[field].kind === 'ladder' ? 'require' : 'lower';
      return `- name: r${index}\n  when: event.data.missing${index} == 1\n  then: { ${verb}: { ${field}: ${value} } }`;
    }),
  );
  fc.assert(
    fc.property(failing, (texts) => {
      const rules = lenient(texts);
      if (rules === undefined) return;
      assert.deepEqual(morePermissive(profileOf(caseOf(), rules).profile, profileOf(caseOf()).profile), []);
    }),
    { numRuns: 100 },
  );
});
