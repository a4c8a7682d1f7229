/** Codes of contracts of outputs, and of what is kept of clones. Part of core/errors.ts. */
import type { Meaning } from './errors.ts';
import { exitCodes } from './exit-codes.ts';

export const outputErrors = {
  // ---- outputs -----------------------------------------------------------------------------------------------------
  E_SCHEMA_INVALID: {
    stage: 'accept', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The schema of the output cannot be used',
    remedy: 'Correct what the message names: JSON Schema 2020-12, references with `#` only, patterns of RE2.',
  },
  E_OUTPUT_SCHEMA: {
    stage: 'validate', blame: 'caller', retryable: false, exit: exitCodes.functionFailed,
    title: 'The result does not fit its schema',
    remedy: 'Correct the function or the schema that was given with `--schema`.',
  },
  E_OUTPUT_TYPE: {
    stage: 'validate', blame: 'caller', retryable: false, exit: exitCodes.functionFailed,
    title: 'The output is not of a type that may come out',
    remedy: 'Correct the function, or allow the type with `--output-type`.',
  },
  E_OUTPUT_SECRET: {
    stage: 'validate', blame: 'guest', retryable: false, exit: exitCodes.violation,
    title: 'The result has a secret, a canary or a credential in it',
    remedy: 'Nothing was given out. Find out how the function came by it, and replace the secret.',
  },
  E_OUTPUT_INDICATOR: {
    stage: 'validate', blame: 'guest', retryable: false, exit: exitCodes.violation,
    title: 'The result has something in it that threat feeds list',
    remedy: 'Nothing was given out. Treat the event and the function as hostile until you know better.',
  },
  E_OUTPUT_REJECTED: {
    stage: 'validate', blame: 'caller', retryable: false, exit: exitCodes.functionFailed,
    title: 'The validator that was given with `--validator` did not accept the result',
    remedy: 'Read its reason above; without an answer of the validator nothing is given out.',
  },
  // ---- forensics ---------------------------------------------------------------------------------------------------
  E_FORENSICS_KEY: {
    stage: 'release', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'The key of a tenant\'s snapshots cannot be used',
    remedy: 'Restore the named file with mode 0600; without it the snapshots of this tenant cannot be read.',
  },
  E_FORENSICS_CORRUPT: {
    stage: 'release', blame: 'operator', retryable: false, exit: exitCodes.violation,
    title: 'A snapshot is not as it was written',
    remedy: 'Somebody changed it, or its key is another: do not rely on what it says.',
  },
  E_FORENSICS_UNKNOWN: {
    stage: 'release', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'There is no snapshot of that run',
    remedy: 'Run `mayfly forensics list`; a run is kept with `mayfly run --keep`, or by its profile.',
  },
  E_FORENSICS_HELD: {
    stage: 'release', blame: 'operator', retryable: false, exit: exitCodes.usage,
    title: 'A snapshot is under legal hold',
    remedy: 'Lift the hold with `mayfly forensics hold RUN --lift` before you remove it.',
  },
  E_ACCESS_DENIED: {
    stage: 'setup', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'This user does not have the role that this needs',
    remedy: 'Ask whoever keeps MAYFLY_HOME/roles.json to give you the role that the message names.',
  },
} as const satisfies Record<string, Meaning>;
