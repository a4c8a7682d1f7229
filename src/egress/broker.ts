/**
 * The only way out of a clone. For each connection of the guest, in this order: the policy's verdict on what the guest
 * names, the host's own resolution of that name, the verdict on every address that came of it, and the dial of an
 * address that has passed. The guest's connect() waits meanwhile and gets what the dial got.
 */
import type { Socket } from 'node:net';
import { limits } from '../core/limits.ts';
import { TokenBucket } from '../core/rate.ts';
import type { Clock } from '../core/time.ts';
import { within } from '../core/time.ts';
import type { NetworkPolicy } from '../profile/network.ts';
import type { Broker, Denies, GuestEnd, Refusal, Target, WorldEnd } from './contract.ts';
import { DnsStream } from './dns-stream.ts';
import { answerQuery, looksLikeTunnel, Names } from './dns.ts';
import { PendingFlow } from './flow.ts';
import { GuestStream } from './guest-stream.ts';
import { parseHost } from './host.ts';
import { messageOf } from './http.ts';
import { serveHttp1 } from './http1.ts';
import { serveHttp2 } from './http2.ts';
import { Inspector } from './inspector.ts';
import { judgeProtocol, judgeTls, Requests } from './judge.ts';
import { decide } from './policy.ts';
import type { Decision, Destination } from './policy.ts';
import { FlowLog } from './report.ts';
import type { EgressReport } from './report.ts';
import { Upstream } from './upstream.ts';

const DNS_PORT = 53;

/** What the broker needs of the world. */
export interface Network {
  /** Addresses of a canonical name. Rejects when there is none. */
  resolve(name: string): Promise<readonly string[]>;
  /** A connection under way; `connect` or `error` follow. */
  dial(address: string, port: number): Socket;
}

export interface BrokerOptions {
  readonly policy: NetworkPolicy;
  readonly network: Network;
  readonly clock: Clock;
  /** Asked at every query and dial, so that a feed counts that was pulled meanwhile. */
  readonly denies?: Denies;
}

/** Thrown on the way to a connection; `because` goes into the evidence. */
class Refused extends Error {
  readonly verdict: 'denied' | 'failed';
  readonly reason: Refusal;

  constructor(verdict: 'denied' | 'failed', reason: Refusal, because: string) {
    super(because);
    this.verdict = verdict;
    this.reason = reason;
  }
}

export class EgressBroker implements Broker {
  readonly #policy: NetworkPolicy;
  readonly #network: Network;
  readonly #clock: Clock;
  readonly #names = new Names();
  readonly #log = new FlowLog();
  readonly #connects: TokenBucket;
  readonly #queries: TokenBucket;
  readonly #start: number;
  readonly #open = new Set<PendingFlow>();
  readonly #denies: Denies | undefined;
  #allowed = 0;

  constructor({ policy, network, clock, denies }: BrokerOptions) {
    this.#policy = policy;
    this.#network = network;
    this.#clock = clock;
    this.#denies = denies;
    this.#start = clock.now();
    this.#connects = new TokenBucket(clock, policy.limits.connectionsPerSecond);
    this.#queries = new TokenBucket(clock, limits.dnsQueriesPerSecond);
  }

  report(): EgressReport {
    for (const flow of [...this.#open]) flow.over();
    return this.#log.report();
  }

  query(message: Buffer): Buffer | undefined {
    if (!this.#queries.take()) {
      this.#log.totals.queriesDropped++;
      return undefined;
    }
    const { asked, allowed, message: reply } = answerQuery(message, this.#names, (name) =>
      this.#decide({ name, address: undefined, port: undefined }).allowed);
    if (asked?.name !== undefined && looksLikeTunnel(asked.name)) this.#log.totals.queriesLikeTunnels++;
    if (asked !== undefined) this.#log.query(asked.name ?? null, asked.type, allowed);
    return reply;
  }

  open(target: Target, guest: GuestEnd): WorldEnd {
    if (target.port === DNS_PORT) return new DnsStream(guest, (message) => this.query(message));
    const flow = new PendingFlow(this.#log, this.#open, this.#clock, this.#start, target.port);
    const counted = {
      sent: (bytes: number) => this.#count(flow, bytes, 0),
      received: (bytes: number) => this.#count(flow, 0, bytes),
      over: () => flow.over(),
    };
    const upstream = new Upstream(guest, { ...counted, clock: this.#clock, watch: (chunk) => inspector.watch(chunk) });
    const inspector = new Inspector({
      guest, upstream, clock: this.#clock,
      judgeTls: (hello) => judgeTls(this.#policy, flow, hello, this.#denies),
      judgeTcp: () => judgeProtocol(this.#policy, flow, 'tcp'),
      denied: (because) => flow.finish('denied', because),
      handOver: (protocol) => {
        const socket = upstream.release();
        if (socket === undefined) return undefined;
        flow.protocol = 'http';
        const stream = new GuestStream(guest, counted);
        const about = { policy: this.#policy, log: this.#log, clock: this.#clock, start: this.#start };
        const exchange = new Requests({ ...about, flow, denies: this.#denies });
        (protocol === 'http1' ? serveHttp1 : serveHttp2)(stream, socket, exchange);
        return stream.world;
      },
    });
    this.#connect(target, flow, upstream).then(
      (socket) => {
        flow.connected = !upstream.over;
        upstream.connected(socket);
      },
      (thrown: unknown) => {
        const refused = thrown instanceof Refused ? thrown : failed('unreachable', messageOf(thrown));
        const { verdict, reason, message } = refused;
        flow.finish(verdict, message);
        guest.reset(reason);
      },
    );
    return inspector;
  }

  // ---- one connection -----------------------------------------------------------------------------------------------

  async #connect({ address, port }: Target, flow: PendingFlow, upstream: Upstream): Promise<Socket> {
    flow.name = this.#names.nameOf(address);
    if (flow.name === undefined) flow.address = address;
    this.#admit(flow, port);
    const addresses = flow.name === undefined ? [address] : await this.#resolve(flow.name);
    const usable = addresses.filter((each) => this.#passes(flow, each, port));
    if (usable.length === 0) throw new Refused('denied', 'denied', flow.because);
    return await this.#dial(usable.slice(0, limits.dialAddressesMax), flow, port, upstream);
  }

  /** Everything that can be said before a name is resolved. */
  #admit({ name, address }: PendingFlow, port: number): void {
    const { connections } = this.#policy.limits;
    const { allowed, because } = this.#decide({ name, address, port });
    if (!allowed) throw new Refused('denied', 'denied', because);
    if (!this.#connects.take()) throw new Refused('denied', 'limit', 'more connections per second than allowed');
    if (++this.#allowed > connections) throw new Refused('denied', 'limit', `more than ${connections} connections`);
  }

  async #resolve(name: string): Promise<readonly string[]> {
    const late = (): Error => failed('timeout', `${name} was not resolved in time`);
    try {
      return await within(this.#clock, limits.resolveMillisMax, this.#network.resolve(name), late);
    } catch (thrown) {
      if (thrown instanceof Refused) throw thrown;
      throw failed('unreachable', `${name} does not resolve: ${messageOf(thrown)}`);
    }
  }

  /** The verdict on an address that a name led to; it may be another one than when the guest asked. */
  #passes(flow: PendingFlow, text: string, port: number): boolean {
    const host = parseHost(text);
    if (host?.kind !== 'address') return false;
    const { allowed, because } = this.#decide({ name: flow.name, address: host.address, port });
    flow.because = because;
    if (!allowed) flow.address = host.address;
    return allowed;
  }

  async #dial(addresses: readonly string[], flow: PendingFlow, port: number, upstream: Upstream): Promise<Socket> {
    const end = this.#clock.now() + limits.dialMillisMax;
    let why = 'no address';
    for (const [index, address] of addresses.entries()) {
      if (upstream.over) break;
      const share = (end - this.#clock.now()) / (addresses.length - index);
      flow.address = address;
      flow.because = this.#decide({ name: flow.name, address, port }).because;
      const socket = this.#network.dial(address, port);
      try {
        await within(this.#clock, share, connected(socket), () => failed('timeout', 'nobody answered in time'));
        return socket;
      } catch (thrown) {
        socket.destroy();
        why = messageOf(thrown);
        if (index === addresses.length - 1) throw thrown instanceof Refused ? thrown : failed('unreachable', why);
      }
    }
    throw failed('unreachable', why);
  }

  #decide(destination: Destination): Decision {
    return decide(this.#policy, destination, this.#denies);
  }

  #count(flow: PendingFlow, sent: number, received: number): boolean {
    const { totals } = this.#log;
    flow.sentBytes += sent;
    flow.receivedBytes += received;
    totals.sentBytes += sent;
    totals.receivedBytes += received;
    if (totals.sentBytes + totals.receivedBytes <= this.#policy.limits.bytes) return true;
    flow.finish('denied', `more than ${this.#policy.limits.bytes} bytes in this run`);
    return false;
  }
}

function failed(reason: Refusal, because: string): Refused {
  return new Refused('failed', reason, because);
}

function connected(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('connect', resolve);
    socket.on('error', reject);
  });
}
