/** Runs a target from a seed until it crashes, has run often enough, or time is up. */
import { FuzzRandom } from './random.ts';
import type { FuzzTarget } from './target.ts';

export interface Crash {
  /** Seed of this one input. */
  readonly seed: number;
  readonly input: Buffer;
  readonly error: unknown;
}

export interface FuzzResult {
  readonly iterations: number;
  readonly crash: Crash | undefined;
}

export interface FuzzOptions {
  readonly target: FuzzTarget;
  readonly seed: number;
  /** Asked before each iteration. */
  readonly goOn: (iterations: number) => boolean;
}

/** Input `i` has the seed `seed + i`: any one of them is made again without those before it. */
export async function fuzz({ target, seed, goOn }: FuzzOptions): Promise<FuzzResult> {
  let iterations = 0;
  while (goOn(iterations)) {
    const own = (seed + iterations) >>> 0;
    const input = target.make(new FuzzRandom(own));
    const error = await crashOf(target, input);
    iterations++;
    if (error !== undefined) return { iterations, crash: { seed: own, input: await shrink(target, input), error } };
  }
  return { iterations, crash: undefined };
}

export async function crashOf(target: FuzzTarget, input: Buffer): Promise<unknown> {
  try {
    await target.check(input);
    return undefined;
  } catch (thrown) {
    return thrown ?? new Error('undefined was thrown');
  }
}

/** Attempts to make a crash smaller: readable crashes get fixed. */
const SHRINK_ATTEMPTS_MAX = 500;

/** The smallest input found that still crashes: pieces are cut out as long as that works. */
async function shrink(target: FuzzTarget, crashing: Buffer): Promise<Buffer> {
  let best = crashing;
  let attempts = 0;
  for (let size = best.length >>> 1; size >= 1; size >>>= 1) {
    for (let at = 0; at < best.length && attempts < SHRINK_ATTEMPTS_MAX; attempts++) {
      const smaller = Buffer.concat([best.subarray(0, at), best.subarray(at + size)]);
      if (await crashOf(target, smaller) === undefined) at += size;
      else best = smaller;
    }
  }
  return best;
}
