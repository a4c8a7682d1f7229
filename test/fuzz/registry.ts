/**
 * Every parser that meets bytes of an attacker, as a target: how to make an input from a seed, and what must hold for
 * any input. A crash is an input for which `check` throws; it is a file, so it can be kept and repeated.
 */
import type { FuzzRandom } from './random.ts';
import { canary } from './targets/canary.ts';
import { frame } from './targets/frame.ts';
import { message } from './targets/message.ts';
import { session } from './targets/session.ts';

export interface FuzzTarget {
  /** One input; the same random gives the same bytes. */
  make(random: FuzzRandom): Buffer;
  /** Throws, or rejects, when the code under test does something that it must never do. */
  check(input: Buffer): void | Promise<void>;
  /** Iterations of the smoke test: about a second on the development machine. */
  readonly smokeIterations: number;
}

export const targets: Readonly<Record<string, FuzzTarget>> = { frame, message, session };

/** Not a target: a parser with a bug, which the fuzzer must find. It shows that finding nothing means something. */
export { canary };
