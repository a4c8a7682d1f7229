/** How the function ended, as the guest tells it: every byte and number of it is hostile until validated. */
import type { Usage } from '../evidence/record.ts';

/** What came of the request to a function that is a server. */
export type ServerAnswer =
  | {
      readonly ok: true;
      readonly status: number;
      /** In their order, names in lower case. */
      readonly headers: readonly (readonly [string, string])[];
      readonly body: Buffer;
    }
  | {
      readonly ok: false;
      readonly code: 'E_SERVER_NOT_LISTENING' | 'E_SERVER_RESPONSE' | 'E_OUTPUT_TOO_LARGE';
      readonly message: string;
    };

export interface Execution {
  /** The result stream as it came: a runtime's envelope, or an executable's stdout. */
  readonly output: Buffer;
  /** Present exactly when the function is a server. */
  readonly answer?: ServerAnswer;
  readonly usage: Usage;
  /** The guest dropped what was beyond the profile's limit. */
  readonly truncated: { readonly output: boolean; readonly stdout: boolean; readonly stderr: boolean };
  /** The last of stderr, at most `limits.stderrTailBytes`: why a runtime died is only ever said there. */
  readonly stderrTail: Buffer;
}
