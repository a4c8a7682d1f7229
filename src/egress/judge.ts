/**
 * The verdict on what a connection turns out to speak, after the one on where it goes: to whom a ClientHello is
 * addressed, and every single request of HTTP. What is found is noted in the flow.
 */
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { millisRounded } from '../core/time.ts';
import type { Clock } from '../core/time.ts';
import type { NetworkPolicy, Protocol } from '../profile/network.ts';
import type { Denies } from './contract.ts';
import type { ClientHello } from './client-hello.ts';
import type { PendingFlow } from './flow.ts';
import { parseHost } from './host.ts';
import type { Asked, Exchange } from './http.ts';
import { asksForRequests, decide, plainPath } from './policy.ts';
import type { Decision } from './policy.ts';
import type { FlowLog, RequestFact } from './report.ts';

type Where = Pick<PendingFlow, 'name' | 'address' | 'port'>;

export function judgeProtocol(policy: NetworkPolicy, flow: PendingFlow, protocol: Protocol): Decision {
  flow.protocol = protocol;
  const decision = decide(policy, { ...destinationOf(flow), protocol });
  if (decision.allowed) flow.because = decision.because;
  return decision;
}

/** `hello` is undefined for one of SSL 2; `denies` knows names that are listed. */
export function judgeTls(
  policy: NetworkPolicy,
  flow: PendingFlow,
  hello: ClientHello | undefined,
  denies?: Denies,
): Decision {
  const given = hello?.serverName;
  const host = given === undefined ? undefined : parseHost(given);
  const serverName = host?.kind === 'name' ? host.name : undefined;
  const ech = hello?.hasEch === true;
  flow.tls = { serverName: serverName ?? null, alpn: hello?.alpn ?? [], ech, ja4: hello?.ja4 ?? null };
  const decision = judgeProtocol(policy, flow, 'tls');
  if (!decision.allowed) return decision;
  const listed = denies?.({ name: serverName, address: undefined });
  if (listed !== undefined) return denied(listed);
  const audit = policy.mode === 'audit';
  if (ech && policy.tls.ech === 'deny' && !audit) {
    return denied('the ClientHello is encrypted for another name (ECH), which this policy denies');
  }
  if (given === undefined) {
    // Who connects to an address has no name to send; the rule that let it through names the address.
    if (flow.name === undefined || policy.tls.noName === 'allow' || audit) return decision;
    return denied(`the ClientHello names no server; ${flow.name} was allowed`);
  }
  const said = printableLine(given, 100);
  if (serverName === undefined) return audit ? decision : denied(`the server name ${said} is no host name`);
  const other = judgeOther(policy, flow, serverName, 'tls');
  if (other === undefined) return decision;
  if (!audit) return denied(`the server name ${said} is not ${whereOf(flow)}: ${other}`);
  flow.because = `${decision.because}; the server name ${said} is not ${whereOf(flow)}`;
  return decision;
}

/** Undefined when `name` may stand for where the connection goes; otherwise why not. */
function judgeOther(policy: NetworkPolicy, flow: Where, name: string, protocol: Protocol): string | undefined {
  if (name === flow.name) return undefined;
  if (flow.name !== undefined) return 'this connection was opened for another name';
  const decision = decide(policy, { ...destinationOf(flow), name, protocol });
  return decision.allowed ? undefined : decision.because;
}

function destinationOf({ name, address, port }: Where) {
  return { name, address, port };
}

function whereOf({ name, address }: Where): string {
  return name ?? address ?? 'its target';
}

function denied(because: string): Decision {
  return { allowed: false, because };
}

export interface RequestsOptions {
  readonly policy: NetworkPolicy;
  readonly flow: PendingFlow;
  readonly log: FlowLog;
  readonly clock: Clock;
  /** When the event was delivered, by `clock`. */
  readonly start: number;
  readonly denies: Denies | undefined;
}

/** The requests of one connection. */
export class Requests implements Exchange {
  readonly scheme = 'http';
  readonly authority: string;
  readonly #options: RequestsOptions;

  constructor(options: RequestsOptions) {
    this.#options = options;
    const { flow } = options;
    const host = flow.name ?? (flow.address?.includes(':') === true ? `[${flow.address}]` : (flow.address ?? ''));
    this.authority = flow.port === 80 ? host : `${host}:${flow.port}`;
  }

  judge({ method, authority, target }: Asked): Decision {
    const { policy, flow, denies } = this.#options;
    if (method === 'CONNECT') return denied('CONNECT would open a tunnel that nobody can look into');
    const named = hostOf(authority, flow.port);
    const listed = denies?.(namesOf(named));
    if (listed !== undefined) return denied(listed);
    const audit = policy.mode === 'audit';
    const wrong = named === undefined
      ? 'the request does not name one host'
      : this.#mismatch(named);
    if (wrong !== undefined && !audit) return denied(wrong);
    const where = destinationOf(flow);
    const path = plainPath(target);
    if (path === undefined && !(method === 'OPTIONS' && target === '*') && asksForRequests(policy, where)) {
      return denied('the path can be read in more than one way, and a rule depends on it');
    }
    const decision = decide(policy, { ...where, protocol: 'http', request: { method, path: path ?? target } });
    if (!decision.allowed) return decision;
    flow.because = decision.because;
    return wrong === undefined ? decision : { allowed: true, because: `${decision.because}; ${wrong}` };
  }

  /** The host of a request against what its connection was opened for. */
  #mismatch(named: string): string | undefined {
    const { policy, flow } = this.#options;
    if (named === (flow.name ?? flow.address)) return undefined;
    const isAddress = parseHost(named)?.kind === 'address';
    const other = isAddress ? 'it is another address' : judgeOther(policy, flow, named, 'http');
    return other === undefined ? undefined : `the host ${printableLine(named, 100)} is not ${whereOf(flow)}: ${other}`;
  }

  done(asked: Asked, verdict: RequestFact['verdict'], because: string, status: number | null): void {
    const { flow, log, clock, start } = this.#options;
    const path = printableLine(asked.target.split('?', 1)[0] ?? '', limits.httpPathUnitsKept);
    log.request({
      at: millisRounded(clock.now() - start), host: hostOf(asked.authority, flow.port) ?? null, port: flow.port,
      method: printableLine(asked.method, 24), path, verdict, because, status,
    });
  }
}

function namesOf(host: string | undefined): Parameters<Denies>[0] {
  const isAddress = host !== undefined && parseHost(host)?.kind === 'address';
  return isAddress ? { name: undefined, address: host } : { name: host, address: undefined };
}

/** The canonical host of an authority whose port, if it has one, is the connection's. */
function hostOf(authority: string | undefined, port: number): string | undefined {
  const [, text = '', given] = /^(\[[^\]]*\]|[^:]*)(?::(\d{1,5}))?$/.exec(authority ?? '') ?? [];
  if (given !== undefined && Number(given) !== port) return undefined;
  const host = parseHost(text);
  return host?.kind === 'name' ? host.name : host?.address;
}
