import type { FuzzRandom } from './random.ts';

/** A parser that meets bytes of an attacker: how to make an input from a seed, and what must hold for any input. */
export interface FuzzTarget {
  /** One input; the same random gives the same bytes. */
  make(random: FuzzRandom): Buffer;
  /** Throws, or rejects, when the code under test does something that it must never do. */
  check(input: Buffer): void | Promise<void>;
  /** Iterations of the smoke test: about a second on the development machine. */
  readonly smokeIterations: number;
}
