/** Codes of the service: functions, tenants, the HTTP interface and the store behind it. Part of core/errors.ts. */
import type { Meaning } from './errors.ts';
import { exitCodes } from './exit-codes.ts';

export const serviceErrors = {
  // ---- functions and tenants ---------------------------------------------------------------------------------------
  E_MANIFEST_INVALID: {
    stage: 'setup', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The manifest of a function cannot be used',
    remedy: 'Correct the lines that the message names; docs/SERVE.md lists every field of mayfly.yaml.',
  },
  E_FUNCTION_UNKNOWN: {
    stage: 'accept', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'There is no function, or no version of it, of that name',
    remedy: 'Run `mayfly function list` to see what is deployed.',
  },
  E_FUNCTION_CORRUPT: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'A deployed function is not what its digest says',
    remedy: 'Something wrote to MAYFLY_HOME/functions: deploy the function again.',
  },
  E_TENANT_UNKNOWN: {
    stage: 'setup', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'There is no tenant of that name',
    remedy: 'Run `mayfly tenant list`, or make it with `mayfly tenant create NAME`.',
  },
  E_KEY_UNKNOWN: {
    stage: 'setup', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'There is no API key of that name',
    remedy: 'Run `mayfly key list`.',
  },
  // ---- the HTTP interface ------------------------------------------------------------------------------------------
  E_UNAUTHENTICATED: {
    stage: 'accept', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The request carries no valid API key',
    remedy: 'Send `Authorization: Bearer KEY` with a key of `mayfly key create`.',
  },
  E_FORBIDDEN: {
    stage: 'accept', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The API key lacks the role that this request needs',
    remedy: 'Use a key with that role (`mayfly key create --role`).',
  },
  E_ROUTE_UNKNOWN: {
    stage: 'accept', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'There is nothing at this address',
    remedy: 'See /openapi.json for what there is.',
  },
  E_REQUEST_INVALID: {
    stage: 'accept', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The request is not one that this address takes',
    remedy: 'See /openapi.json for its parameters, headers and bodies.',
  },
  E_REQUEST_TIMEOUT: {
    stage: 'accept', blame: 'caller', retryable: true, exit: exitCodes.usage,
    title: 'The request did not arrive in time',
    remedy: 'Send headers and body without pauses.',
  },
  E_ENCODING: {
    stage: 'accept', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'Compressed bodies are not taken',
    remedy: 'Send the body without Content-Encoding.',
  },
  E_EVENT_UNKNOWN: {
    stage: 'accept', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'There is no event of that id',
    remedy: 'Its result may have expired, or it belongs to another tenant.',
  },
  E_IDEMPOTENCY_CONFLICT: {
    stage: 'accept', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The idempotency key was used before, with another body',
    remedy: 'Use a new key for a new event.',
  },
  E_RATE_LIMITED: {
    stage: 'accept', blame: 'caller', retryable: true, exit: exitCodes.usage,
    title: 'The tenant sends more events per second than its quota',
    remedy: 'Wait as Retry-After says, or ask the operator for a larger quota.',
  },
  E_OVERLOADED: {
    stage: 'accept', blame: 'operator', retryable: true, exit: exitCodes.environment,
    title: 'The queue is full',
    remedy: 'Wait as Retry-After says; an operator may raise `queue` or add a machine.',
  },
  E_DRAINING: {
    stage: 'accept', blame: 'operator', retryable: true, exit: exitCodes.environment,
    title: 'The service is about to stop and takes no new events',
    remedy: 'Send the event again in a moment.',
  },
  // ---- the service and its store -----------------------------------------------------------------------------------
  E_SERVE_CONFIG: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.usage,
    title: 'The configuration of the service cannot be used',
    remedy: 'Correct what the message names; docs/SERVE.md lists every setting.',
  },
  E_SERVE_ADDRESS: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'The service cannot listen where it should',
    remedy: 'Another program may have the port; choose one with `--listen`.',
  },
  E_SERVE_RUNNING: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'Another service runs with this MAYFLY_HOME',
    remedy: 'Stop it, or give this one another MAYFLY_HOME.',
  },
  E_STORE_FULL: {
    stage: 'accept', blame: 'operator', retryable: true, exit: exitCodes.environment,
    title: 'There is no room to keep another event',
    remedy: 'Free disk space, raise `storeBytes`, or purge dead letters (`mayfly dlq purge`).',
  },
  E_STORE_FAILED: {
    stage: 'accept', blame: 'operator', retryable: true, exit: exitCodes.environment,
    title: 'The store of events could not be read or written',
    remedy: 'Nothing was acknowledged. Check the disk of MAYFLY_HOME and the log of the service.',
  },
} as const satisfies Record<string, Meaning>;
