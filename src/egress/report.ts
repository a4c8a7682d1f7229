/** What one run did on the network: part of its evidence. Lists are bounded, totals count everything. */
import { limits } from '../core/limits.ts';
import type { Protocol } from '../profile/network.ts';

export interface Flow {
  /** Milliseconds after the event was delivered. */
  readonly at: number;
  readonly millis: number;
  /** Null for a connection to a bare address. */
  readonly name: string | null;
  /** Where it was dialled, or what the guest named; null when a name was never resolved. */
  readonly address: string | null;
  readonly port: number;
  /** Null when it was over before it said anything. */
  readonly protocol: Protocol | null;
  readonly verdict: 'allowed' | 'denied' | 'failed';
  /** The rule, or what went wrong. */
  readonly because: string;
  /** From the guest, and to it. */
  readonly sentBytes: number;
  readonly receivedBytes: number;
  /** Null for what was no TLS. */
  readonly tls: TlsFacts | null;
}

/** What a ClientHello says of its client and of whom it wants. */
export interface TlsFacts {
  /** Canonical; null when there is none, or none that is a host name. */
  readonly serverName: string | null;
  readonly alpn: readonly string[];
  readonly ech: boolean;
  /** Null for a ClientHello of SSL 2. */
  readonly ja4: string | null;
}

/** One HTTP request. */
export interface RequestFact {
  readonly at: number;
  /** As the request names it; null for what is no host. */
  readonly host: string | null;
  readonly port: number;
  readonly method: string;
  /** Without its query, which may hold anything. */
  readonly path: string;
  readonly verdict: 'allowed' | 'denied' | 'failed';
  readonly because: string;
  /** Of the answer that the guest got; null when it got none. */
  readonly status: number | null;
}

export interface QueryCount {
  /** Null for what is no host name. */
  readonly name: string | null;
  readonly type: string;
  readonly verdict: 'allowed' | 'denied';
  readonly count: number;
}

export interface EgressReport {
  readonly totals: {
    readonly connections: number;
    readonly denied: number;
    readonly failed: number;
    readonly sentBytes: number;
    readonly receivedBytes: number;
    /** HTTP requests. */
    readonly requests: number;
    readonly requestsDenied: number;
    readonly queries: number;
    readonly queriesDenied: number;
    /** Queries that got no answer because there were too many. */
    readonly queriesDropped: number;
    /** Queries for names that look as if they carried data. */
    readonly queriesLikeTunnels: number;
  };
  /** The first ones. */
  readonly flows: readonly Flow[];
  readonly queries: readonly QueryCount[];
  readonly requests: readonly RequestFact[];
}

type Totals = { -readonly [K in keyof EgressReport['totals']]: number };

export class FlowLog {
  readonly totals: Totals = {
    connections: 0, denied: 0, failed: 0, sentBytes: 0, receivedBytes: 0, requests: 0, requestsDenied: 0,
    queries: 0, queriesDenied: 0, queriesDropped: 0, queriesLikeTunnels: 0,
  };
  readonly #flows: Flow[] = [];
  readonly #queries = new Map<string, QueryCount>();
  readonly #requests: RequestFact[] = [];

  flow(flow: Flow): void {
    this.totals.connections++;
    if (flow.verdict === 'denied') this.totals.denied++;
    if (flow.verdict === 'failed') this.totals.failed++;
    if (this.#flows.length < limits.flowsKept) this.#flows.push(flow);
  }

  request(request: RequestFact): void {
    this.totals.requests++;
    if (request.verdict === 'denied') this.totals.requestsDenied++;
    if (this.#requests.length < limits.flowsKept) this.#requests.push(request);
  }

  query(name: string | null, type: string, allowed: boolean): void {
    this.totals.queries++;
    if (!allowed) this.totals.queriesDenied++;
    const key = `${type} ${name}`;
    const known = this.#queries.get(key);
    if (known === undefined && this.#queries.size >= limits.flowsKept) return;
    const count = (known?.count ?? 0) + 1;
    this.#queries.set(key, { name, type, verdict: allowed ? 'allowed' : 'denied', count });
  }

  report(): EgressReport {
    const flows = this.#flows.toSorted((a, b) => a.at - b.at);
    const queries = [...this.#queries.values()];
    return { totals: { ...this.totals }, flows, queries, requests: [...this.#requests] };
  }
}
