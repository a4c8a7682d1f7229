/**
 * Which image an event runs in, where nobody has named one: pure, from what the function needs and is for, what the
 * event says it is, what its content really is, and how much of a threat it looks like. Rules may name an image; then
 * that counts, within the same bounds. Higher threat never chooses a less strict image: docs/PROFILES.md, "Image".
 */
import { MayflyError } from '../core/errors.ts';
import type { FunctionClass } from '../image/manifest.ts';
import { threatLevels } from './levels.ts';
import type { ThreatLevel } from './levels.ts';
import type { Reason } from './profile.ts';

/** What an image on this machine offers, from its signed manifest. */
export interface ImageOffer {
  readonly name: string;
  readonly classes: readonly FunctionClass[];
  readonly variant: 'standard' | 'strict';
  /** Program of its warm runtime, as in `node` or `python3`; null when it only runs executables. */
  readonly language: string | null;
  readonly contentTypes: readonly string[];
  readonly eventTypes: readonly string[];
  /** Of its file system. */
  readonly bytes: number;
}

/** A rule that applies has named an image. */
export interface ImageWish {
  readonly image: string;
  /** As in `rule photos (rules.yaml:3)`. */
  readonly by: string;
  /** It began to apply because the threat grew. */
  readonly byThreat: boolean;
}

export interface ChooseInput {
  readonly offers: readonly ImageOffer[];
  /** By the caller, `NAME` or `NAME:TAG`; undefined leaves it to the event. */
  readonly requested?: string | undefined;
  readonly functionClass?: FunctionClass | undefined;
  /** The language of the function; null: an executable, which runs in any image; undefined: not known. */
  readonly language?: string | null | undefined;
  readonly isServer: boolean;
  readonly eventType: string;
  /** Media types of the event's attachments by their content, the largest first. */
  readonly contentTypes: readonly string[];
  readonly level: ThreatLevel;
  readonly wishes: readonly ImageWish[];
}

export interface ImageChoice {
  /** A name of the repository, or what the caller has asked for. */
  readonly image: string;
  /** Of the field `image`; the last one that is not overruled has set it. */
  readonly reasons: readonly Reason[];
}

/** From this level on a strict variant is taken where there is one. */
const STRICT_FROM: ThreatLevel = 'elevated';

/** Throws E_IMAGE_UNKNOWN for an image that a rule names and nobody has, E_IMAGE_UNSUITABLE when nothing fits. */
export function chooseImage(input: ChooseInput): ImageChoice {
  const { requested, wishes, level } = input;
  // In one order, so that of several that are refused it is always the same.
  const sorted = wishes.toSorted((a, b) => (a.image === b.image ? 0 : a.image < b.image ? -1 : 1));
  const wished = sorted.map((wish) => ({ ...wish, offer: offerOf(input, wish) }));
  if (requested !== undefined && wished.length === 0) {
    return { image: requested, reasons: [{ field: 'image', because: 'requested (--image)' }] };
  }
  const always = wished.filter(({ byThreat }) => !byThreat);
  const steps: { readonly offer: ImageOffer | undefined; readonly name: string; readonly because: string }[] = [];
  if (requested !== undefined) {
    const offer = input.offers.find(({ name }) => name === requested.replace(/:.*/, ''));
    steps.push({ offer, name: requested, because: 'requested (--image)' });
  } else if (always.length === 0) {
    const { offers, because } = suitable(input);
    const offer = bySeverity(offers, level);
    const kind = offer.variant === 'strict' ? 'the strict one' : 'the smallest';
    const strictly = isSevere(level) ? `; ${kind} for level ${level}` : '';
    steps.push({ offer, name: offer.name, because: `${because}${strictly}` });
  }
  // The strictest of several: so their order does not matter, and one more never makes it laxer.
  for (const { offer, by } of strictestLast(always)) {
    steps.push({ offer, name: offer.name, because: `${by} chooses ${offer.name}` });
  }
  const before = steps.at(-1);
  for (const { offer, by } of strictestLast(wished.filter(({ byThreat }) => byThreat))) {
    const known = before?.offer;
    const laxer = known !== undefined && compare(offer, known) < 0;
    const because = `${by} chooses ${offer.name}`;
    if (laxer) steps.unshift({ offer, name: offer.name, because: `${because}, which is less strict` });
    else steps.push({ offer, name: offer.name, because });
  }
  const last = steps.length - 1;
  const reasons = steps.map(({ because }, index) => {
    return { field: 'image', because, ...(index === last ? {} : { overruled: true as const }) };
  });
  return { image: steps[last]?.name ?? '', reasons };
}

/** All images of the first way to tell that finds any. */
function suitable(input: ChooseInput): { readonly offers: readonly ImageOffer[]; readonly because: string } {
  const { functionClass, language, isServer, eventType, contentTypes } = input;
  const able = input.offers.filter((offer) => canRun(offer, language));
  const ofClass = (wanted: FunctionClass) => ({ classes }: ImageOffer): boolean => classes.includes(wanted);
  const byDefault: FunctionClass = language === null ? 'shell' : 'compute';
  const ways: { readonly fits: (offer: ImageOffer) => boolean; readonly because: string }[] =
    functionClass !== undefined
      ? [{ fits: ofClass(functionClass), because: `for functions of class ${functionClass}` }]
      : [
          {
            fits: (offer) => offer.eventTypes.some((form) => matches(form, eventType)),
            because: 'serves events of this type',
          },
          ...contentTypes.map((type) => ({
            fits: (offer: ImageOffer) => offer.contentTypes.some((form) => matches(form, type)),
            because: `the event has ${type}`,
          })),
          ...(isServer ? [{ fits: ofClass('web'), because: 'the function is a server' }] : []),
          { fits: ofClass(byDefault), because: 'default' },
        ];
  for (const { fits, because } of ways) {
    const offers = able.filter(fits);
    if (offers.length > 0) return { offers, because };
  }
  const what = functionClass === undefined ? byDefault : functionClass;
  const runs = typeof language === 'string' ? ` that runs ${language}` : '';
  throw new MayflyError('E_IMAGE_UNSUITABLE', `There is no image for functions of class ${what}${runs}.`);
}

function offerOf({ offers, language }: ChooseInput, { image, by }: ImageWish): ImageOffer {
  const offer = offers.find(({ name }) => name === image);
  if (offer === undefined) throw missingImage(image, by);
  if (canRun(offer, language)) return offer;
  throw new MayflyError('E_IMAGE_UNSUITABLE', `${by} chooses ${image}, which does not run ${language ?? 'it'}.`);
}

/** `by`: who has named it. */
export function missingImage(image: string, by: string): MayflyError {
  return new MayflyError('E_IMAGE_UNKNOWN', `${by} chooses the image ${image}, which is not on this machine.`);
}

function canRun({ language }: ImageOffer, needed: string | null | undefined): boolean {
  return needed === null || needed === undefined || language === needed;
}

/** A trailing `*` stands for any rest. */
function matches(form: string, value: string): boolean {
  return form.endsWith('*') ? value.startsWith(form.slice(0, -1)) : form === value;
}

function isSevere(level: ThreatLevel): boolean {
  return threatLevels.indexOf(level) >= threatLevels.indexOf(STRICT_FROM);
}

/** Below `STRICT_FROM` the smallest standard image, from there on the strictest of all. */
function bySeverity(offers: readonly ImageOffer[], level: ThreatLevel): ImageOffer {
  const standard = offers.filter(({ variant }) => variant === 'standard');
  const considered = isSevere(level) || standard.length === 0 ? offers : standard;
  return considered.toSorted(compare).at(-1) as ImageOffer;
}

function strictestLast<T extends { readonly offer: ImageOffer; readonly by: string }>(wishes: readonly T[]): T[] {
  return wishes.toSorted((a, b) => compare(a.offer, b.offer) || (a.by < b.by ? 1 : -1));
}

/** Less strict first: standard before strict, then the larger before the smaller, then by name. */
export function compare(a: ImageOffer, b: ImageOffer): number {
  if (a.variant !== b.variant) return a.variant === 'standard' ? -1 : 1;
  if (a.bytes !== b.bytes) return b.bytes - a.bytes;
  return a.name === b.name ? 0 : a.name < b.name ? 1 : -1;
}
