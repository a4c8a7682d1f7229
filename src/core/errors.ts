/**
 * One error class, one table of codes. A code is a promise to scripts and is never reused for another meaning.
 *
 * What a guest does wrong is not an exception: it ends as a verdict that carries one of the same codes
 * (validate/verdict.ts). Exceptions are for callers, operators and the host itself. test/unit/core/errors.test.ts keeps
 * this table and docs/ERRORS.md identical.
 */

import { exitCodes } from './exit-codes.ts';
import { serviceErrors } from './service-errors.ts';
import { imageErrors } from './image-errors.ts';
import { outputErrors } from './output-errors.ts';

export { exitCodes };

/** Who has to act. `caller`: event, function or command line. `operator`: the machine or its configuration. */
export type Blame = 'caller' | 'guest' | 'host' | 'operator';

/** Where in the journey of an event it happened; `setup` is everything before there is an event. */
export type Stage = 'setup' | 'accept' | 'profile' | 'clone' | 'bridge' | 'validate' | 'release' | 'seal';

export interface Meaning {
  readonly stage: Stage;
  readonly blame: Blame;
  /** The same call may succeed when simply made again. */
  readonly retryable: boolean;
  /** Exit code of the command line; docs/ERRORS.md lists them. */
  readonly exit: number;
  readonly title: string;
  /** What to do about it, one sentence. */
  readonly remedy: string;
}

export const errorTable = Object.freeze({
  // ---- set-up and machine ------------------------------------------------------------------------------------------
  E_USAGE: {
    stage: 'setup', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The command line was not understood',
    remedy: 'Run `mayfly --help`, or the command with `--help`, and correct the named argument.',
  },
  E_SETUP_MISSING: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'Something that a clone needs has not been built or installed',
    remedy: 'Run `npm run setup` in the checkout; it installs and builds what is missing.',
  },
  E_HOME_UNUSABLE: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'MAYFLY_HOME cannot be written to',
    remedy: 'Point MAYFLY_HOME at a folder that you may write to, and run `npm run setup` for it.',
  },
  E_PACKAGES_MISSING: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'System packages are missing and there is no root or sudo to install them',
    remedy: 'Install the packages that the message lists, then run the command again.',
  },
  E_QEMU_MISSING: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'qemu-system-x86_64 was not found or cannot do what Mayfly needs',
    remedy: 'Install the package qemu-system-x86 (7.2 or newer), or run `npm run setup`.',
  },
  E_ARTEFACT_CORRUPT: {
    stage: 'setup', blame: 'host', retryable: true, exit: exitCodes.environment,
    title: 'A kernel, image or template does not have the digest it was stored under',
    remedy: 'Run `npm run setup`; it detects damaged artefacts and builds them again.',
  },
  E_IMAGE_MANIFEST: {
    stage: 'setup', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'An image manifest, or the layout around it, is not one',
    remedy: 'Get the image again from where it was exported; what a manifest must have is in docs/FORMATS.md.',
  },
  E_IMAGE_UNSIGNED: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'An image carries no signature of a trusted key',
    remedy: 'Trust its key with `mayfly image trust FILE`, sign it (`mayfly image sign`), or use `--allow-unsigned`.',
  },
  E_IMAGE_SIGNATURE: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'A signature of an image or tag does not match what it signs',
    remedy: 'Somebody changed it: remove it with `mayfly image remove`, and get it again from its source.',
  },
  E_IMAGE_KEY: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'A key in MAYFLY_HOME/keys cannot be used',
    remedy: 'Restore the named file with mode 0600, or remove it; `npm run setup` makes a new key and signs again.',
  },
  E_IMAGE_DOWNGRADE: {
    stage: 'setup', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'A tag would move to an image that is older than the one it names',
    remedy: 'Give the older image another tag, or pass `--allow-downgrade`.',
  },
  E_IMAGE_INCOMPATIBLE: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'The image needs a newer kernel or machine than this one',
    remedy: 'Run `npm run setup` for the current kernel, or use an image that this version of Mayfly supports.',
  },
  E_DISK_SPACE: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'There is not enough free disk space',
    remedy: 'Free space in the file system named in the message, or point MAYFLY_HOME at a larger one.',
  },
  E_ACCELERATOR: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'The requested accelerator does not work on this machine',
    remedy: 'Run `mayfly doctor` to see why, or allow software emulation with `--accel auto`.',
  },
  E_TEMPLATE_BUILD: {
    stage: 'setup', blame: 'host', retryable: true, exit: exitCodes.environment,
    title: 'A template VM did not become ready',
    remedy: 'Read the end of its console in the message; `mayfly doctor` checks kernel, image and accelerator.',
  },
  ...imageErrors,
  E_INTEL_CONFIG: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.usage,
    title: 'The configuration of the threat feeds is not valid',
    remedy: 'Correct the named line of MAYFLY_HOME/intel/feeds.yaml (docs/FORMATS.md).',
  },
  E_INTEL_FETCH: {
    stage: 'setup', blame: 'operator', retryable: true, exit: exitCodes.environment,
    title: 'A threat feed could not be fetched',
    remedy: 'The last good copy stays in use; check the address of the feed and the network.',
  },
  E_INTEL_AUTH: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'A threat feed refused the credentials, or there are none',
    remedy: 'Renew the token and export it in the environment variable that feeds.yaml names.',
  },
  E_INTEL_FORMAT: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'What a threat feed sent is not in its format',
    remedy: 'The last good copy stays in use; check `format` in feeds.yaml.',
  },
  E_INTEL_SIGNATURE: {
    stage: 'setup', blame: 'operator', retryable: true, exit: exitCodes.environment,
    title: 'A threat feed is not what its publisher has signed',
    remedy: 'The last good copy stays in use; ask the publisher, and check the key in feeds.yaml.',
  },
  E_INTEL_TOO_LARGE: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'A threat feed is larger than the limit',
    remedy: 'Subscribe to a smaller list, or to the same one in a line format, which is streamed.',
  },
  E_INTEL_QUARANTINED: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'A threat feed was quarantined: it may be poisoned',
    remedy: 'Look at the findings; `mayfly intel sync FEED --accept` takes the copy without the rows found.',
  },
  E_INTEL_YARA: {
    stage: 'profile', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'YARA rules could not be applied',
    remedy: 'Install the package yara, and check the rules in MAYFLY_HOME/intel/yara.',
  },
  // ---- accept ------------------------------------------------------------------------------------------------------
  E_EVENT_INVALID: {
    stage: 'accept', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The event is not valid',
    remedy: 'Send a CloudEvents 1.0 JSON object, or any other JSON value to have it wrapped in one.',
  },
  E_EVENT_TOO_LARGE: {
    stage: 'accept', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The event is larger or deeper than the limit',
    remedy: 'Put large payloads in object storage and send a reference in the event.',
  },
  E_HANDLER_MISSING: {
    stage: 'accept', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The handler file does not exist or cannot be read',
    remedy: 'Check the path given to `--handler`.',
  },
  E_CODE_TOO_LARGE: {
    stage: 'accept', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The function has more files or bytes than the limit',
    remedy: 'Bundle the handler, or remove what it does not need at run time.',
  },
  E_CODE_UNSAFE: {
    stage: 'accept', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The function contains something that cannot be shipped into a clone',
    remedy: 'Remove the named file: only regular files, folders and links that stay inside the function are allowed.',
  },
  // ---- profile -----------------------------------------------------------------------------------------------------
  E_IMAGE_UNKNOWN: {
    stage: 'profile', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'There is no base image of that name',
    remedy: 'Run `mayfly images` to list the images on this machine.',
  },
  E_IMAGE_UNSUITABLE: {
    stage: 'profile', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'No base image of this machine fits the function',
    remedy: 'Name one with `--image`, another class with `--class`, or see `mayfly image list` for what there is.',
  },
  E_RULES_INVALID: {
    stage: 'profile', blame: 'operator', retryable: false, exit: exitCodes.usage,
    title: 'The context rules cannot be used',
    remedy: 'Correct the lines that the message names; `mayfly rules check` shows all of them.',
  },
  E_EVENT_REJECTED: {
    stage: 'profile', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'A rule refuses this event',
    remedy: 'See the rule that the message names; `mayfly profile --explain` shows why it applies.',
  },
  E_LIMIT_INVALID: {
    stage: 'profile', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'A requested limit is outside its bounds',
    remedy: 'Choose a value within the bounds named in the message.',
  },
  E_NETWORK_INVALID: {
    stage: 'profile', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The network policy cannot be used as given',
    remedy: 'Correct the rule that the message names; `mayfly egress explain --help` has examples.',
  },
  E_POLICY_COMPILE: {
    stage: 'clone', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'The kernel policy of a profile could not be compiled for the guest',
    remedy: 'Install the package apparmor (`npm run setup` does), and see that MAYFLY_HOME/policies can be written.',
  },
  // ---- clone -------------------------------------------------------------------------------------------------------
  E_CLONE_FAILED: {
    stage: 'clone', blame: 'host', retryable: true, exit: exitCodes.internal,
    title: 'A clone could not be started from its template',
    remedy: 'Try again; if it persists, `mayfly doctor --rebuild` makes new templates.',
  },
  E_CLONE_NOT_UNIQUE: {
    stage: 'clone', blame: 'host', retryable: true, exit: exitCodes.internal,
    title: 'A clone could not prove that its randomness, clock and identity are its own',
    remedy: 'The clone was destroyed before the event reached it; try again and report it if it persists.',
  },
  E_TEMPLATE_TAMPERED: {
    stage: 'clone', blame: 'host', retryable: false, exit: exitCodes.internal,
    title: 'A template changed after it was sealed',
    remedy: 'The template was discarded. Find out what wrote to it before you trust this machine again.',
  },
  E_PROOF_MISMATCH: {
    stage: 'clone', blame: 'host', retryable: true, exit: exitCodes.internal,
    title: 'What is in force inside the clone differs from its profile',
    remedy: 'The clone was destroyed before the event reached it; the message names the difference.',
  },
  // ---- the guest, seen over the bridge: verdicts ------------------------------------------------------------------
  E_GUEST_PROTOCOL: {
    stage: 'bridge', blame: 'guest', retryable: false, exit: exitCodes.violation,
    title: 'The guest sent something that the bridge does not allow',
    remedy: 'The clone was destroyed. Treat the function as hostile, or report a bug if it is not.',
  },
  E_GUEST_DIED: {
    stage: 'bridge', blame: 'guest', retryable: false, exit: exitCodes.violation,
    title: 'The VM ended before the function did',
    remedy: 'The end of its console is in the message; a function that crashes its kernel looks like this.',
  },
  E_GUEST_SILENT: {
    stage: 'bridge', blame: 'guest', retryable: false, exit: exitCodes.violation,
    title: 'The guest stopped answering in the middle of a message',
    remedy: 'The clone was destroyed; run it again with `--trace` to see where it stopped.',
  },
  E_FUNCTION_LOAD: {
    stage: 'bridge', blame: 'caller', retryable: false, exit: exitCodes.functionFailed,
    title: 'The handler could not be loaded',
    remedy: 'Read the error above: a syntax error, a missing module or a missing export.',
  },
  E_FUNCTION_THREW: {
    stage: 'bridge', blame: 'caller', retryable: false, exit: exitCodes.functionFailed,
    title: 'The handler threw an exception',
    remedy: 'Read the stack above.',
  },
  E_FUNCTION_EXIT: {
    stage: 'bridge', blame: 'caller', retryable: false, exit: exitCodes.functionFailed,
    title: 'The function ended without a result',
    remedy: 'A handler must return; an executable must exit with status 0.',
  },
  E_FUNCTION_TIMEOUT: {
    stage: 'bridge', blame: 'caller', retryable: false, exit: exitCodes.functionFailed,
    title: 'The function did not finish within its wall time',
    remedy: 'Make it faster or raise `--timeout`.',
  },
  E_FUNCTION_MEMORY: {
    stage: 'bridge', blame: 'caller', retryable: false, exit: exitCodes.functionFailed,
    title: 'The function needed more memory than its profile allows',
    remedy: 'Make it smaller or raise `--memory`.',
  },
  E_SERVER_NOT_LISTENING: {
    stage: 'bridge', blame: 'guest', retryable: false, exit: exitCodes.functionFailed,
    title: 'The function was to be a server and did not listen on its port',
    remedy: 'Listen on 127.0.0.1, or on every address, at the port that the environment variable PORT names.',
  },
  E_SERVER_RESPONSE: {
    stage: 'bridge', blame: 'guest', retryable: false, exit: exitCodes.functionFailed,
    title: 'What the server in the clone answered is not a usable HTTP response',
    remedy: 'Send one complete HTTP/1.1 response with a status from 200 to 599 and a body of the type that it names.',
  },
  // ---- validate ----------------------------------------------------------------------------------------------------
  E_OUTPUT_TOO_LARGE: {
    stage: 'validate', blame: 'caller', retryable: false, exit: exitCodes.functionFailed,
    title: 'The result is larger or deeper than the limit',
    remedy: 'Return less, or store the result elsewhere and return a reference.',
  },
  E_OUTPUT_INVALID: {
    stage: 'validate', blame: 'caller', retryable: false, exit: exitCodes.functionFailed,
    title: 'The result is not valid JSON',
    remedy: 'Return a value that JSON can express; functions, BigInt and cycles cannot.',
  },
  // ---- release and seal -------------------------------------------------------------------------------------------
  E_RELEASE_INCOMPLETE: {
    stage: 'release', blame: 'host', retryable: false, exit: exitCodes.internal,
    title: 'Something that a run held is still there after its release',
    remedy: 'The run is quarantined; the message names what is left. Remove it, then report this.',
  },
  E_EVIDENCE_WRITE: {
    stage: 'seal', blame: 'operator', retryable: false, exit: exitCodes.internal,
    title: 'The evidence record could not be written',
    remedy: 'Check that MAYFLY_HOME is writable and has space.',
  },
  E_INTERRUPTED: {
    stage: 'bridge', blame: 'caller', retryable: true, exit: exitCodes.interrupted,
    title: 'The run was interrupted',
    remedy: 'Nothing is left behind; run it again.',
  },
  E_ABANDONED: {
    stage: 'release', blame: 'host', retryable: true, exit: exitCodes.internal,
    title: 'The process that ran the event died before the run was over',
    remedy: 'What it left was removed by a later start; run the event again.',
  },
  ...serviceErrors,
  ...outputErrors,
  E_INTERNAL: {
    stage: 'setup', blame: 'host', retryable: false, exit: exitCodes.internal,
    title: 'Mayfly met a situation that it believed impossible',
    remedy: 'Report it with the message and `mayfly version`.',
  },
} as const satisfies Record<string, Meaning>);

export type ErrorCode = keyof typeof errorTable;

export interface ErrorOptions {
  /** Said instead of the table's remedy where the situation allows a better one. */
  readonly remedy?: string;
  /** Text below the message: a stack, the end of a console. */
  readonly detail?: string;
  readonly cause?: unknown;
}

export class MayflyError extends Error {
  override readonly name = 'MayflyError';
  readonly code: ErrorCode;
  readonly stage: Stage;
  readonly blame: Blame;
  readonly retryable: boolean;
  readonly remedy: string;
  readonly detail: string | undefined;

  /** `message` says what happened, with the values that matter; the table supplies the rest. */
  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    const meaning = errorTable[code];
    this.code = code;
    this.stage = meaning.stage;
    this.blame = meaning.blame;
    this.retryable = meaning.retryable;
    this.remedy = options.remedy ?? meaning.remedy;
    this.detail = options.detail;
  }
}

/** Anything thrown, as a MayflyError; what is not one already is a bug and says so. */
export function asMayflyError(thrown: unknown): MayflyError {
  if (thrown instanceof MayflyError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const detail = thrown instanceof Error ? thrown.stack : undefined;
  return new MayflyError('E_INTERNAL', message, { cause: thrown, ...(detail === undefined ? {} : { detail }) });
}
