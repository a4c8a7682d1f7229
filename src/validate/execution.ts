/** How the function ended, as the guest tells it: every byte and number of it is hostile until validated. */
import type { Usage } from '../evidence/record.ts';

export interface Execution {
  /** The result stream as it came: a runtime's envelope, or an executable's stdout. */
  readonly output: Buffer;
  readonly usage: Usage;
  /** The guest dropped what was beyond the profile's limit. */
  readonly truncated: { readonly output: boolean; readonly stdout: boolean; readonly stderr: boolean };
  /** The last of stderr, at most `limits.stderrTailBytes`: why a runtime died is only ever said there. */
  readonly stderrTail: Buffer;
}
