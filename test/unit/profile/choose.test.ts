/**
 * Goal: the image of an event follows from function, class, type, content and threat, with a reason, in any order of
 * images and rules; more threat never chooses a less strict image. Method: a table of examples, and random
 * repositories, rules and events.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MayflyError } from '../../../src/core/errors.ts';
import { chooseImage, compare } from '../../../src/profile/choose.ts';
import type { ChooseInput, ImageOffer, ImageWish } from '../../../src/profile/choose.ts';
import { threatLevels } from '../../../src/profile/levels.ts';

const offer = (name: string, given: Partial<ImageOffer>): ImageOffer => ({
  name, classes: ['compute'], variant: 'standard', language: null, contentTypes: [], eventTypes: [], bytes: 100,
  ...given,
});

const offers: readonly ImageOffer[] = [
  offer('node', { language: 'node', bytes: 117 }),
  offer('python', { language: 'python3', bytes: 30 }),
  offer('web', { language: 'node', classes: ['web'], bytes: 117 }),
  offer('image', { language: 'python3', classes: ['image'], contentTypes: ['image/*'], bytes: 60 }),
  offer('image-strict', { language: 'python3', classes: ['image'], contentTypes: ['image/*'], variant: 'strict' }),
  offer('document', { language: 'python3', classes: ['document'], contentTypes: ['application/pdf'], bytes: 70 }),
  offer('orders', { language: 'python3', classes: ['database'], eventTypes: ['com.example.order.*'] }),
  offer('shell', { classes: ['shell'], bytes: 20 }),
];

const input = (given: Partial<ChooseInput>): ChooseInput => ({
  offers, language: 'python3', isServer: false, eventType: 'x', contentTypes: [], level: 'low', wishes: [], ...given,
});

const chosen = (given: Partial<ChooseInput>): string => chooseImage(input(given)).image;
const rule = (image: string, byThreat = false): ImageWish => ({ image, by: `rule ${image}`, byThreat });

for (const [name, given, expected] of [
  ['a Python handler and nothing more', {}, 'python'], ['a Node handler', { language: 'node' }, 'node'],
  ['a Node server', { language: 'node', isServer: true }, 'web'], ['a Python server', { isServer: true }, 'python'],
  ['an executable', { language: null }, 'shell'],
  ['a photo', { contentTypes: ['image/png'] }, 'image'],
  ['a photo that is a threat', { contentTypes: ['image/png'], level: 'elevated' }, 'image-strict'],
  ['a photo that is guarded', { contentTypes: ['image/png'], level: 'guarded' }, 'image'],
  ['a photo for a Node handler, which no such image runs', { contentTypes: ['image/png'], language: 'node' }, 'node'],
  ['the larger attachment first', { contentTypes: ['application/pdf', 'image/png'] }, 'document'],
  ['a class, whatever the content is', { functionClass: 'document', contentTypes: ['image/png'] }, 'document'],
  ['a type of events, before content', { eventType: 'com.example.order.new', contentTypes: ['image/png'] }, 'orders'],
  ['a request, whatever the content is', { requested: 'python:old', contentTypes: ['image/png'] }, 'python:old'],
  ['a rule, against content', { contentTypes: ['image/png'], wishes: [rule('document')] }, 'document'],
  ['a rule, against a request', { requested: 'python', wishes: [rule('document')] }, 'document'],
  ['the strictest of two rules', { wishes: [rule('image-strict'), rule('image')] }, 'image-strict'],
  ['a rule that follows the threat to something stricter', { wishes: [rule('image-strict', true)] }, 'image-strict'],
  ['a rule that follows the threat to something laxer', { wishes: [rule('document', true)] }, 'python'],
] as const satisfies readonly (readonly [string, Partial<ChooseInput>, string])[]) {
  test(name, () => {
    const { image, reasons } = chooseImage(input(given));
    assert.equal(image, expected);
    const counting = reasons.filter(({ overruled }) => overruled !== true);
    assert.equal(counting.length, 1, JSON.stringify(reasons));
    assert.deepEqual(reasons.at(-1), counting[0]);
  });
}

test('reasons say why, and what was overruled', () => {
  const { reasons } = chooseImage(input({ contentTypes: ['image/png'], level: 'high' }));
  assert.deepEqual(reasons, [{ field: 'image', because: 'the event has image/png; the strict one for level high' }]);
  assert.deepEqual(chooseImage(input({ wishes: [rule('document', true)] })).reasons, [
    { field: 'image', because: 'rule document chooses document, which is less strict', overruled: true },
    { field: 'image', because: 'default' },
  ]);
});

for (const [name, given, code] of [
  ['a class that no image is for', { functionClass: 'analysis' }, 'E_IMAGE_UNSUITABLE'],
  ['a class whose images do not run the language', { functionClass: 'image', language: 'node' }, 'E_IMAGE_UNSUITABLE'],
  ['a rule with an image that is not here', { wishes: [rule('missing')] }, 'E_IMAGE_UNKNOWN'],
  ['a rule with an image that does not run it', { wishes: [rule('node')] }, 'E_IMAGE_UNSUITABLE'],
  ['an empty repository', { offers: [] }, 'E_IMAGE_UNSUITABLE'],
] as const satisfies readonly (readonly [string, Partial<ChooseInput>, string])[]) {
  test(`refused: ${name}`, () => assert.throws(() => chosen(given), { code }));
}

const anyOffers = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
    classes: fc.constantFrom(['compute'], ['image'], ['compute', 'image']),
    variant: fc.constantFrom('standard', 'strict'),
    language: fc.constantFrom('node', 'python3', null),
    contentTypes: fc.constantFrom([], ['image/*'], ['image/png']),
    eventTypes: fc.constantFrom([], ['x'], ['y*']),
    bytes: fc.integer({ min: 1, max: 4 }),
  }),
  { selector: ({ name }) => name, minLength: 1 },
) as fc.Arbitrary<ImageOffer[]>;

const anyInput = fc.record({
  offers: anyOffers,
  functionClass: fc.constantFrom(undefined, 'compute', 'image'),
  language: fc.constantFrom('node', 'python3', null, undefined),
  isServer: fc.boolean(),
  eventType: fc.constantFrom('x', 'yes', 'z'),
  contentTypes: fc.constantFrom([], ['image/png'], ['text/plain', 'image/gif']),
  wishes: fc.array(fc.record({
    image: fc.constantFrom('a', 'b', 'c'), by: fc.constantFrom('rule 1', 'rule 2'), byThreat: fc.constant(false),
  }), { maxLength: 2 }),
});

function outcome(given: ChooseInput): string | ImageOffer {
  try {
    const { image } = chooseImage(given);
    return given.offers.find(({ name }) => name === image) ?? image;
  } catch (thrown) {
    if (thrown instanceof MayflyError) return thrown.code;
    throw thrown;
  }
}

test('property: more threat, and rules that it makes apply, never choose a less strict image', () => {
  const byThreat = fc.array(fc.constantFrom('a', 'b', 'c', 'd', 'e'), { maxLength: 2 });
  fc.assert(fc.property(anyInput, fc.nat(4), fc.nat(4), byThreat, (given, one, other, names) => {
    const [low, high] = [Math.min(one, other), Math.max(one, other)];
    const calm = outcome({ ...given, level: threatLevels[low] ?? 'low' });
    const wishes = [...given.wishes, ...names.map((name) => rule(name, true))];
    const alarmed = outcome({ ...given, level: threatLevels[high] ?? 'low', wishes });
    // A refusal restricts more than any image.
    if (typeof calm === 'string') assert.equal(typeof alarmed, 'string');
    else if (typeof alarmed !== 'string') assert.ok(compare(alarmed, calm) >= 0, `${alarmed.name} after ${calm.name}`);
  }));
});

test('property: the order of images and rules changes nothing', () => {
  fc.assert(fc.property(anyInput, fc.nat(4), (given, level) => {
    const whole = { ...given, level: threatLevels[level] ?? 'low' };
    const turned = { ...whole, offers: whole.offers.toReversed(), wishes: whole.wishes.toReversed() };
    assert.deepEqual(outcome(turned), outcome(whole));
  }));
});
