/**
 * HTTP between a guest and the one server that its connection leads to. Both sides are ended here by Node's own parsers
 * and every request is written anew, with one length and one host, so that no two readings of the same bytes can slip a
 * second request past the policy. What is common to HTTP/1.1 and HTTP/2.
 */
import { printableLine } from '../core/json.ts';
import type { Decision } from './policy.ts';

/** A request before anything of it has left the host. */
export interface Asked {
  readonly method: string;
  /** Undefined when it names none, or several. */
  readonly authority: string | undefined;
  /** In origin form, with its query. */
  readonly target: string;
}

/** One guest's connection that speaks HTTP. */
export interface Exchange {
  /** The host as it is written upstream, with its port where that is not the scheme's own. */
  readonly authority: string;
  readonly scheme: 'http' | 'https';
  judge(asked: Asked): Decision;
  /** Once for each request. `status`: of the answer that the guest got. */
  done(asked: Asked, verdict: 'allowed' | 'denied' | 'failed', because: string, status: number | null): void;
}

/** What concerns one connection only and is never passed on (RFC 9110, 7.6.1). */
const HOP: ReadonlySet<string> = new Set([
  'connection', 'keep-alive', 'proxy-connection', 'proxy-authorization', 'proxy-authenticate', 'te',
  'transfer-encoding', 'upgrade', 'http2-settings', 'expect',
]);

export function isHop(name: string): boolean {
  return HOP.has(name.toLowerCase());
}

/** Lower-case names that `Connection` says are for one connection only as well. */
export function namedByConnection(connection: string | undefined): ReadonlySet<string> {
  return new Set((connection ?? '').split(',').map((each) => each.trim().toLowerCase()));
}

/** What people read when they are refused. */
export function refusal(because: string): string {
  return `mayfly: denied: ${printableLine(because, 300)}\n`;
}

export function failure(because: string): string {
  return `mayfly: no answer: ${printableLine(because, 300)}\n`;
}

export const refusalHeaders = Object.freeze({
  'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store',
});

export function messageOf(thrown: unknown): string {
  const code = thrown instanceof Error && 'code' in thrown ? String(thrown.code) : undefined;
  return code ?? (thrown instanceof Error ? thrown.message : String(thrown));
}
