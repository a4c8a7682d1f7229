/**
 * What a session is asked and answered with, apart from its states: calls that a clone may leave open, what CONFIGURE
 * is made of, and what a FAULT of the guest is worth.
 */
import { MayflyError } from '../core/errors.ts';
import type { ErrorCode } from '../core/errors.ts';
import { printableLine } from '../core/json.ts';
import { ProtocolError } from './frame.ts';
import { failureOf } from './link.ts';
import type { BridgeFailure } from './link.ts';
import type { Message } from './message.ts';

export type ConfiguredLimits = Omit<Message<'CONFIGURE'>, 'argv' | 'env' | 'uid' | 'gid' | 'policy' | 'filter'>;

export interface Configuration extends Pick<Message<'CONFIGURE'>, 'uid' | 'gid' | 'policy' | 'filter'> {
  /** May hold more than CONFIGURE has, as a profile's limits do. */
  readonly limits: ConfiguredLimits;
  readonly argv: readonly string[];
  readonly env: readonly string[];
}

/** Codes that a FAULT may carry, and the last state in which the guest may say so. */
const faultCodes: ReadonlyMap<string, { readonly code: ErrorCode; readonly beforeStart: boolean }> = new Map([
  ['E_CLONE_NOT_UNIQUE', { code: 'E_CLONE_NOT_UNIQUE', beforeStart: true }],
  ['E_CLONE_FAILED', { code: 'E_CLONE_FAILED', beforeStart: true }],
  ['E_FUNCTION_LOAD', { code: 'E_FUNCTION_LOAD', beforeStart: false }],
]);

export interface Call<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: MayflyError) => void;
}

/** A promise that may be left alone: with nobody awaiting it, its rejection is not an unhandled one. */
export function deferred<T>(): Call<T> {
  const made = Promise.withResolvers<T>();
  made.promise.catch(() => {});
  return made;
}

export function rejected<T>(code: ErrorCode, message: string): Promise<T> {
  const call = deferred<T>();
  call.reject(new MayflyError(code, message));
  return call.promise;
}

export function configureOf(configuration: Configuration): Message<'CONFIGURE'> {
  const { limits: granted, argv, env, uid, gid, policy, filter } = configuration;
  const { memoryBytes, cpuQuotaMicros, cpuPeriodMicros, pids, openFiles, scratchBytes } = granted;
  const { stdoutBytes, stderrBytes, outputBytes } = granted;
  return {
    memoryBytes, cpuQuotaMicros, cpuPeriodMicros, pids, openFiles, scratchBytes, stdoutBytes, stderrBytes, outputBytes,
    argv, env, uid, gid, policy, filter,
  };
}

export function faultOf({ code, message }: Message<'FAULT'>, started: boolean): BridgeFailure {
  const said = printableLine(message, 300);
  const known = faultCodes.get(code);
  if (known !== undefined && !(known.beforeStart && started)) {
    return { code: known.code, reason: `the guest reports: ${said}` };
  }
  const shown = JSON.stringify(printableLine(code, 60));
  return failureOf(new ProtocolError('order', `FAULT with the code ${shown}: ${said}`));
}
