/** Errors as RFC 9457 problem details: the status for machines, the code for scripts, the remedy for people. */
import { errorTable } from '../core/errors.ts';
import type { ErrorCode } from '../core/errors.ts';
import type { EventFailure } from './store/event.ts';

const STATUS: Partial<Record<ErrorCode, number>> = {
  E_UNAUTHENTICATED: 401,
  E_FORBIDDEN: 403, E_EVENT_REJECTED: 403,
  E_ROUTE_UNKNOWN: 404, E_FUNCTION_UNKNOWN: 404, E_EVENT_UNKNOWN: 404, E_TENANT_UNKNOWN: 404,
  E_REQUEST_TIMEOUT: 408,
  E_IDEMPOTENCY_CONFLICT: 409,
  E_EVENT_TOO_LARGE: 413,
  E_ENCODING: 415,
  E_RATE_LIMITED: 429, E_OVERLOADED: 429,
  E_REQUEST_INVALID: 400, E_EVENT_INVALID: 400,
  E_FUNCTION_TIMEOUT: 504,
  E_DRAINING: 503, E_STORE_FULL: 503, E_STORE_FAILED: 503, E_INTERRUPTED: 503,
};

/** What the function or its guest has done is a bad gateway; what the host could not do is for another time. */
function statusOf(code: ErrorCode): number {
  const known = STATUS[code];
  if (known !== undefined) return known;
  const { blame, stage } = errorTable[code];
  if (code === 'E_INTERNAL') return 500;
  if (stage === 'bridge' || stage === 'validate') return 502;
  return blame === 'caller' ? 400 : 503;
}

/** Seconds after which the same request may succeed; undefined where waiting does not help. */
export function retryAfterOf(code: ErrorCode, queueSeconds: number): number | undefined {
  if (code === 'E_RATE_LIMITED') return 1;
  if (code === 'E_OVERLOADED') return queueSeconds;
  return statusOf(code) === 503 ? 5 : undefined;
}

export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly code: ErrorCode;
  readonly blame: string;
  readonly detail: string;
  readonly remedy: string;
  /** A stack, the end of a console. */
  readonly trace?: string;
  readonly event?: string;
  readonly run?: string | null;
}

export function problemOf(
  { code, blame, message, remedy, detail }: EventFailure,
  extra: Pick<Problem, 'event' | 'run'> = {},
): Problem {
  const trace = detail === undefined ? {} : { trace: detail };
  const { title } = errorTable[code];
  return {
    type: `urn:mayfly:error:${code}`,
    title,
    status: statusOf(code),
    code,
    blame,
    detail: message,
    remedy,
    ...trace,
    ...extra,
  };
}
