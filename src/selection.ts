/**
 * The image of an event before there is a run: what is on this machine, what the event carries and what the rules say,
 * put together for `profile/choose.ts`. For `mayfly run`, `mayfly profile` and whoever deploys a function.
 */
import { posix } from 'node:path';
import type { Event } from './event/event.ts';
import type { FunctionClass } from './image/manifest.ts';
import type { Image } from './image/repository.ts';
import { imageWishes } from './policy.ts';
import type { PolicyInput } from './policy.ts';
import { chooseImage, missingImage } from './profile/choose.ts';
import type { ImageChoice, ImageOffer } from './profile/choose.ts';
import type { FunctionFacts } from './rules/context.ts';
import { showPlace } from './rules/rule.ts';

export interface SelectionInput {
  readonly event: Event;
  readonly images: readonly Image[];
  readonly requested?: string | undefined;
  readonly functionClass?: FunctionClass | undefined;
  readonly language?: string | null | undefined;
  readonly isServer: boolean;
  /** As rules see it; its image is the one that would be chosen without them. */
  readonly function: Omit<FunctionFacts, 'image'>;
  readonly policy?: PolicyInput | undefined;
}

/** Rejects with E_IMAGE_UNKNOWN and E_IMAGE_UNSUITABLE; also for an image that no event has needed so far. */
export async function selectImage(input: SelectionInput): Promise<ImageChoice> {
  const { event, images, requested, functionClass, language, isServer, policy } = input;
  const offers = images.map(offerOf);
  // A rule's image must be there before the event that needs it is.
  for (const { name, place, effects } of policy?.rules?.rules ?? []) {
    const { image } = effects;
    if (image !== undefined && !offers.some((offer) => offer.name === image)) {
      throw missingImage(image, `rule ${name} (${showPlace(place)})`);
    }
  }
  const known = { offers, requested, functionClass, language, isServer, eventType: event.cloudEvent.type };
  const level = policy?.threat?.level ?? 'low';
  const contentTypes = requested === undefined ? await contentTypesOf(event) : [];
  const plain = chooseImage({ ...known, contentTypes, level, wishes: [] });
  if (policy?.rules === undefined) return plain;
  const decided = imageWishes(event, policy, { ...input.function, image: plain.image });
  return chooseImage({ ...known, contentTypes, level: decided.level, wishes: decided.wishes });
}

function offerOf({ manifest }: Image): ImageOffer {
  const { name, classes, variant, runtime, serves, fileSystem, layers } = manifest;
  const [program] = runtime?.argv ?? [];
  return {
    name, classes, variant, language: program === undefined ? null : posix.basename(program),
    contentTypes: serves.contentTypes, eventTypes: serves.eventTypes,
    bytes: [fileSystem, ...layers].reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

/** By content: what the event says about it is a claim. */
async function contentTypesOf({ cloudEvent, bytes }: Event): Promise<string[]> {
  const { observe } = await import('./intel/observe.ts');
  const { attachments } = await observe({ value: cloudEvent, bytes: bytes.length });
  const sorted = attachments.toSorted((a, b) => b.bytes - a.bytes || (a.where < b.where ? -1 : 1));
  return [...new Set(sorted.map(({ type }) => type))];
}
