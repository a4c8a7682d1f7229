/**
 * From hostile bytes to a Verdict: the result is given out only if it is what was promised, and otherwise the caller is
 * told why in words that are safe to print.
 */
import { constants } from 'node:os';
import { digestOf, isObject, parseStrict, printableLine, printableText } from '../core/json.ts';
import type { JsonProblem } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { Workload } from '../event/workload.ts';
import type { ProfileLimits, SealedProfile } from '../profile/profile.ts';
import type { Execution, ServerAnswer } from './execution.ts';
import { responseOutput } from './response.ts';
import { accepted, failed, withheld } from './verdict.ts';
import type { Verdict } from './verdict.ts';

export interface Validation {
  readonly verdict: Verdict;
  /** Only with an accepted verdict. */
  readonly output: Buffer | undefined;
  /** What is not given out, for who has to look at it. */
  readonly withheld?: Buffer;
  /** Of what the function gave, whether or not it is given out; undefined when it gave nothing. */
  readonly digest: { readonly digest: string; readonly bytes: number } | undefined;
}

export interface ValidateOptions {
  readonly execution: Execution;
  readonly profile: SealedProfile;
  readonly workload: Workload;
}

export function validateOutput({ execution, profile, workload }: ValidateOptions): Validation {
  const granted = profile.profile.limits;
  const { answer } = execution;
  if (answer !== undefined) return validateServer(execution, answer, granted, workload);
  if (workload.kind === 'executable') return validateExecutable(execution, granted, workload.raw);
  return validateRuntime(execution, granted);
}

function give(output: Buffer): Validation {
  return { verdict: accepted, output, digest: { digest: digestOf(output), bytes: output.length } };
}

function refuse(verdict: Verdict, bytes: Buffer): Validation {
  const digest = bytes.length === 0 ? undefined : { digest: digestOf(bytes), bytes: bytes.length };
  return { verdict, output: undefined, digest, withheld: bytes };
}

// ---- servers --------------------------------------------------------------------------------------------------------

/** An answer counts, whatever became of its server then; without one, the server's own end is the better reason. */
function validateServer(
  execution: Execution,
  answer: ServerAnswer,
  granted: ProfileLimits,
  { kind, server }: Workload,
): Validation {
  if (answer.ok) {
    const given = responseOutput(answer, server?.raw === true, granted.outputBytes);
    if (given.ok) return give(given.output);
    return refuse(withheld(given.code, given.message), answer.body);
  }
  if (kind === 'runtime' && execution.output.toString('latin1').trim() !== '') {
    return validateRuntime(execution, granted);
  }
  if (diedEarly(execution)) return refuse(explainEnd(execution, granted), Buffer.alloc(0));
  return refuse(failed(answer.code, answer.message, { detail: stderrOf(execution) }), Buffer.alloc(0));
}

// ---- executables ----------------------------------------------------------------------------------------------------

function validateExecutable(execution: Execution, granted: ProfileLimits, raw: boolean): Validation {
  const { output, usage, truncated } = execution;
  if (usage.exitCode !== 0 || usage.signal !== 0) return refuse(explainEnd(execution, granted), output);
  if (truncated.output) return refuse(tooLarge(granted), output);
  if (raw) return give(output);
  const parsed = parseStrict(output, jsonBounds(granted));
  if (parsed.ok) return give(Buffer.from(parsed.text.trim()));
  const remedy = 'Print one JSON text on stdout and everything else on stderr, or use `--raw` for other output.';
  if (output.length === 0) {
    return refuse(withheld('E_OUTPUT_INVALID', 'The executable printed nothing.', { remedy }), output);
  }
  return refuse(unusable(parsed.problem, granted, "The executable's stdout", remedy), output);
}

function jsonBounds(granted: ProfileLimits): { bytesMax: number; depthMax: number } {
  return { bytesMax: granted.outputBytes, depthMax: limits.outputDepthMax };
}

function tooLarge(granted: ProfileLimits): Verdict {
  return withheld('E_OUTPUT_TOO_LARGE', `The result has more than ${granted.outputBytes} bytes.`);
}

function unusable(problem: JsonProblem, granted: ProfileLimits, subject: string, remedy?: string): Verdict {
  switch (problem.kind) {
    case 'size':
      return tooLarge(granted);
    case 'depth':
      return withheld('E_OUTPUT_TOO_LARGE', `${subject} nests deeper than ${limits.outputDepthMax} levels.`);
    case 'utf8':
      return withheld('E_OUTPUT_INVALID', `${subject} is not UTF-8 text.`, { remedy });
    case 'duplicate':
      return withheld('E_OUTPUT_INVALID', `${subject} has a key twice: ${JSON.stringify(problem.key)}.`, {
        remedy: 'Write every key of an object once.',
      });
    case 'syntax':
      return withheld('E_OUTPUT_INVALID', `${subject} is not JSON: ${problem.message}`, { remedy });
  }
}

// ---- runtimes -------------------------------------------------------------------------------------------------------

/** `{"ok":true,"value":` and `}` around a result, and one more level of nesting. */
function validateRuntime(execution: Execution, granted: ProfileLimits): Validation {
  const { output, truncated } = execution;
  if (truncated.output) return refuse(tooLarge(granted), output);
  if (output.length === 0) return refuse(explainEnd(execution, granted), output);
  const parsed = parseStrict(output, {
    bytesMax: granted.outputBytes + limits.envelopeBytes,
    depthMax: limits.outputDepthMax + 1,
  });
  if (!parsed.ok) {
    // A runtime that was killed while it wrote leaves half an envelope: why it died is the better answer.
    if (diedEarly(execution)) return refuse(explainEnd(execution, granted), output);
    return refuse(unusable(parsed.problem, granted, 'The result', STRAY_BYTES_REMEDY), output);
  }
  const envelope = parsed.value;
  const span = parsed.members.get('value');
  if (isObject(envelope) && envelope['ok'] === true && span !== undefined && parsed.members.size === 2) {
    // Verbatim, so that numbers beyond a double's precision come out as the function wrote them.
    const value = Buffer.from(parsed.text.slice(span[0], span[1]).trim());
    return value.length > granted.outputBytes ? refuse(tooLarge(granted), value) : give(value);
  }
  if (isObject(envelope) && envelope['ok'] === false) {
    return { verdict: explainError(envelope, execution, granted), output: undefined, digest: undefined };
  }
  return refuse(strayFormat(), output);
}

/** What the customer's code threw, capped and without control characters. */
function explainError(
  envelope: { readonly [key: string]: unknown },
  execution: Execution,
  granted: ProfileLimits,
): Verdict {
  const error = isObject(envelope['error']) ? envelope['error'] : {};
  const name = printableLine(text(error['name']), limits.errorNameUnits) || 'Error';
  const message = printableLine(text(error['message']), limits.errorMessageUnits);
  const stack = printableText(text(error['stack']), limits.errorStackUnits);
  const code = printableLine(text(error['code']), limits.errorNameUnits);
  const said = message === '' ? name : `${name}: ${message}`;
  switch (envelope['phase']) {
    case 'load':
      return failed('E_FUNCTION_LOAD', `The handler could not be loaded: ${said}`, {
        detail: stack,
        remedy: isMissingModule(name, code) ? MISSING_MODULE_REMEDY : undefined,
      });
    case 'result':
      return withheld('E_OUTPUT_INVALID', `The result cannot be expressed as JSON: ${said}`, {
        remedy: message.endsWith('JSON has no such number') ? NO_NUMBER_REMEDY : undefined,
      });
    case 'renew':
      return failed('E_CLONE_NOT_UNIQUE', `The runtime could not renew its randomness: ${said}`);
    case 'call':
      if (name === 'MemoryError') return memoryVerdict(execution, granted, stack);
      if (code === 'ERR_UNSETTLED') return failed('E_FUNCTION_THREW', message, { remedy: UNSETTLED_REMEDY });
      return failed('E_FUNCTION_THREW', `The handler threw ${said}${alsoNoted(execution, granted)}`, {
        detail: stack,
        remedy: stack === '' ? 'Throw an Error, so that there is a stack to read.' : undefined,
      });
    default:
      return strayFormat();
  }
}

function strayFormat(): Verdict {
  return withheld('E_OUTPUT_INVALID', "The result is not in the runtime's format.", { remedy: STRAY_BYTES_REMEDY });
}

function isMissingModule(name: string, code: string): boolean {
  return code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND' || name === 'ModuleNotFoundError';
}

const STRAY_BYTES_REMEDY =
  'Only the runtime may write to file descriptor 4: find what else does, and print on stdout or stderr.';
const NO_NUMBER_REMEDY = 'Return null or a string in place of NaN and Infinity.';
const UNSETTLED_REMEDY =
  'Nothing was left that could settle it: look for a promise whose resolve or callback is never called.';
const SIGSYS_REMEDY = 'It made a system call that no function may make (docs/PROFILES.md, system calls).';
const MISSING_MODULE_REMEDY =
  'Only the function\'s own files are shipped: where `--handler` names one file, only the handler file was shipped. ' +
  'Put its modules in its folder and give that with `--code`, or bundle them into the handler.';

// ---- how a process ended --------------------------------------------------------------------------------------------

function diedEarly({ usage }: Execution): boolean {
  return usage.exitCode !== 0 || usage.signal !== 0 || usage.oomKills > 0;
}

/** Why there is no result. */
function explainEnd(execution: Execution, granted: ProfileLimits): Verdict {
  const { usage } = execution;
  const detail = stderrOf(execution);
  if (usage.oomKills > 0) return memoryVerdict(execution, granted, detail);
  if (isHeapExhaustion(execution)) {
    const [limit, peak] = [mebibytes(granted.memoryBytes), mebibytes(usage.memoryPeakBytes)];
    const message = `The JavaScript heap is exhausted (workload limit ${limit}, peak ${peak}).`;
    return failed('E_FUNCTION_MEMORY', message, { detail });
  }
  const note = alsoNoted(execution, granted);
  if (usage.signal !== 0) {
    const message = `The function was ended by ${signalName(usage.signal)}${note}.`;
    const forbidden = usage.signal === constants.signals.SIGSYS;
    return failed('E_FUNCTION_EXIT', message, forbidden ? { detail, remedy: SIGSYS_REMEDY } : { detail });
  }
  if (usage.exitCode !== 0) {
    return failed('E_FUNCTION_EXIT', `The function exited with status ${usage.exitCode}${note}.`, { detail });
  }
  return failed('E_FUNCTION_EXIT', `The function ended without a result${note}.`, {
    detail,
    remedy: 'Return from the handler instead of ending the process, and await what has to finish first.',
  });
}

function stderrOf({ stderrTail }: Execution): string {
  return printableText(stderrTail.toString('utf8'), limits.errorStackUnits).trim();
}

function memoryVerdict({ usage }: Execution, granted: ProfileLimits, detail: string): Verdict {
  const limit = mebibytes(granted.memoryBytes);
  const message = `The function needed more than its ${limit} of memory (peak ${mebibytes(usage.memoryPeakBytes)}).`;
  return failed('E_FUNCTION_MEMORY', message, { detail });
}

/** V8 gives up by itself before the kernel does, with SIGABRT or SIGTRAP; a shell reports those as 128 + signal. */
function isHeapExhaustion({ usage, stderrTail }: Execution): boolean {
  const { SIGABRT, SIGTRAP } = constants.signals;
  const aborted = [SIGABRT, SIGTRAP].some((signal) => usage.signal === signal || usage.exitCode === 128 + signal);
  return aborted && /heap out of memory|Reached heap limit/.test(stderrTail.toString('latin1'));
}

function alsoNoted({ usage }: Execution, granted: ProfileLimits): string {
  const notes: string[] = [];
  if (usage.oomKills > 0) notes.push(`${usage.oomKills} of its processes were killed for memory`);
  if (usage.pidsMaxHits > 0) notes.push(`its limit of ${granted.pids} processes was hit ${usage.pidsMaxHits} times`);
  return notes.length === 0 ? '' : ` (${notes.join('; ')})`;
}

function signalName(signal: number): string {
  const known = Object.entries(constants.signals).find(([, value]) => value === signal);
  return known === undefined ? `signal ${signal}` : known[0];
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / (1024 * 1024))} MiB`;
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
