/**
 * A clone's connections and DNS queries on its bridge: judges their frames and keeps both windows of each connection.
 * What a connection is for and whether it may be is the broker's business; those that the host opens, to a server in
 * the guest, are doors. A function that connects while it is loaded
 * ahead, before there is an event and its broker, waits until there is one.
 *
 * Memory: `egressConnectionsMax` connections, each with what its two windows allow and one chunk that waits for credit.
 */
import { limits } from '../core/limits.ts';
import type { Broker, GuestEnd, Refusal, Target, WorldEnd } from '../egress/contract.ts';
import { Door } from './door.ts';
import { frameTypes, hostStreams, ProtocolError } from './frame.ts';
import type { Frame } from './frame.ts';
import type { Link } from './link.ts';
import {
  decodeCredit, decodeEnd, decodeOpen, decodeReset, encodeCredit, encodeEnd, encodeOpen, encodeReset, Inflow, Outflow,
} from './streams.ts';

/** Of a run that was not given any way out. */
const noBroker: Broker = Object.freeze({
  open(_target: unknown, guest: GuestEnd): WorldEnd {
    guest.reset('denied');
    return { data() {}, end() {}, reset() {}, writable() {} };
  },
  query: () => undefined,
});

/** Questions that may wait for a broker before one more query is lost; a resolver asks again. */
const EARLY_MAX = limits.egressConnectionsMax;

export class Connections {
  readonly #link: Link;
  #broker: Broker | undefined;
  /** What the guest asked before there was a broker: connections by their places, of queries the first ones. */
  readonly #early: (() => void)[] = [];
  readonly #open = new Map<number, Connection>();
  #lastStream = 0;
  #nextOfHost: number = hostStreams.min;
  #opens = 0;
  #queries = 0;
  /** Bytes that may still arrive for connections that the host has ended. */
  #strayBytes = 0;

  constructor(link: Link) {
    this.#link = link;
  }

  /** Once: from now on what the guest asks has an answer. */
  attach(broker: Broker = noBroker): void {
    this.#broker = broker;
    for (const ask of this.#early.splice(0)) ask();
  }

  /** Throws ProtocolError. */
  frame({ type, stream, payload }: Frame): void {
    if (type === frameTypes.OPEN) return this.#connect(stream, payload);
    if (type === frameTypes.QUERY) return this.#query(stream, payload);
    const known = stream < hostStreams.min ? stream <= this.#lastStream : stream < this.#nextOfHost;
    if (!known) throw new ProtocolError('order', `stream ${stream} was never opened`);
    const connection = this.#open.get(stream);
    if (connection === undefined) return this.#stray(type, payload);
    connection.frame(type, payload);
  }

  /** To a server of the guest. Throws RangeError when there were too many. */
  dial(target: Target): Door {
    const stream = this.#nextOfHost++;
    if (stream > hostStreams.max) throw new RangeError('no number is left for a connection of the host');
    const connection = this.#add(stream);
    const door = new Door(connection);
    connection.await(door);
    this.#link.send(frameTypes.OPEN, stream, encodeOpen(target));
    return door;
  }

  /** The link takes more. */
  writable(): void {
    for (const connection of [...this.#open.values()]) connection.pump();
  }

  /** The clone is gone. */
  close(): void {
    for (const connection of [...this.#open.values()]) connection.leave();
    this.#open.clear();
  }

  #next(stream: number, what: string): void {
    if (stream <= this.#lastStream) throw new ProtocolError('order', `${what} on stream ${stream}, which is not new`);
    this.#lastStream = stream;
  }

  #connect(stream: number, payload: Buffer): void {
    const target = decodeOpen(payload);
    this.#next(stream, 'OPEN');
    if (this.#open.size >= limits.egressConnectionsMax) {
      throw new ProtocolError('over-limit', `more than ${limits.egressConnectionsMax} connections at a time`);
    }
    if (++this.#opens > limits.egressAttemptsMax) {
      throw new ProtocolError('over-limit', `more than ${limits.egressAttemptsMax} connections in one run`);
    }
    const connection = this.#add(stream);
    this.#ask((broker) => connection.ask(broker, target));
  }

  #add(stream: number): Connection {
    const connection = new Connection(stream, this.#link, (unusedWindow) => {
      this.#open.delete(stream);
      this.#strayBytes += unusedWindow;
    });
    this.#open.set(stream, connection);
    return connection;
  }

  #ask(question: (broker: Broker) => void): void {
    if (this.#broker !== undefined) question(this.#broker);
    else this.#early.push(() => question(this.#broker ?? noBroker));
  }

  #query(stream: number, payload: Buffer): void {
    this.#next(stream, 'QUERY');
    if (++this.#queries > limits.egressAttemptsMax) {
      throw new ProtocolError('over-limit', `more than ${limits.egressAttemptsMax} DNS queries in one run`);
    }
    if (this.#broker === undefined && this.#early.length >= EARLY_MAX) return;
    this.#ask((broker) => {
      const answer = broker.query(payload);
      // As on any network: an answer that finds no room is lost, and the question is asked again.
      if (answer !== undefined && !this.#link.congested) this.#link.send(frameTypes.ANSWER, stream, answer);
    });
  }

  /** The guest did not know yet that this connection is over: it may send what it had credit for. */
  #stray(type: number, payload: Buffer): void {
    if (type !== frameTypes.DATA) return;
    this.#strayBytes -= payload.length;
    if (this.#strayBytes < 0) throw new ProtocolError('no-credit', 'DATA for connections that are over');
  }
}

class Connection implements GuestEnd {
  readonly #stream: number;
  readonly #link: Link;
  readonly #onOver: (unusedWindow: number) => void;
  readonly #inflow: Inflow;
  readonly #outflow: Outflow;
  #world: WorldEnd | undefined;
  #door: Door | undefined;
  #accepted = false;
  #over = false;
  /** Received and not used yet. */
  #held = 0;
  #rest: Buffer = Buffer.alloc(0);
  #ending = false;
  #ended = false;

  constructor(stream: number, link: Link, onOver: (unusedWindow: number) => void) {
    this.#stream = stream;
    this.#link = link;
    this.#onOver = onOver;
    const { egressWindowBytes } = limits;
    this.#inflow = new Inflow(`connection ${stream}`, Number.MAX_SAFE_INTEGER, egressWindowBytes);
    this.#outflow = new Outflow(`connection ${stream}`, egressWindowBytes);
  }

  ask(broker: Broker, target: Target): void {
    if (!this.#over) this.#world = broker.open(target, this);
  }

  /** Opened by the host: the guest accepts, or resets. */
  await(door: Door): void {
    this.#world = door.world;
    this.#door = door;
  }

  // ---- frames of the guest ------------------------------------------------------------------------------------------

  frame(type: number, payload: Buffer): void {
    if (type === frameTypes.RESET) {
      decodeReset(payload);
      return this.leave();
    }
    if (type === frameTypes.ACCEPT) return this.#opened();
    if (!this.#accepted) throw new ProtocolError('order', `a frame on connection ${this.#stream} before its ACCEPT`);
    if (type === frameTypes.DATA) {
      this.#inflow.receive(payload.length);
      this.#held += payload.length;
      this.#world?.data(payload);
    } else if (type === frameTypes.END) {
      this.#inflow.finish(decodeEnd(payload));
      this.#world?.end();
      this.#finishIfOver();
    } else {
      this.#outflow.grant(decodeCredit(payload));
      this.pump();
    }
  }

  #opened(): void {
    if (this.#accepted) throw new ProtocolError('order', `connection ${this.#stream} was accepted twice`);
    this.#accepted = true;
    this.#door?.opened();
  }

  /** The guest's end is no more. */
  leave(): void {
    if (this.#over) return;
    this.#finish(0);
    this.#world?.reset();
  }

  // ---- calls of the broker ------------------------------------------------------------------------------------------

  accept(): void {
    if (this.#over || this.#accepted) return;
    this.#accepted = true;
    this.#link.send(frameTypes.ACCEPT, this.#stream, Buffer.alloc(0));
  }

  write(chunk: Buffer): boolean {
    if (this.#over || chunk.length === 0) return !this.#over;
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#send();
    return this.#rest.length === 0;
  }

  end(): void {
    this.#ending = true;
    this.#sendEnd();
  }

  reset(reason: Refusal): void {
    if (this.#over) return;
    this.#finish(this.#inflow.ended ? 0 : this.#inflow.window);
    this.#link.send(frameTypes.RESET, this.#stream, encodeReset(reason));
  }

  used(bytes: number): void {
    this.#held -= bytes;
    if (this.#over) return;
    const credit = this.#inflow.takeCredit(this.#held);
    if (credit > 0) this.#link.send(frameTypes.CREDIT, this.#stream, encodeCredit(credit));
  }

  // ---- to the guest -------------------------------------------------------------------------------------------------

  pump(): void {
    if (this.#over || this.#rest.length === 0) return;
    this.#send();
    if (this.#rest.length === 0) this.#world?.writable();
  }

  #send(): void {
    while (this.#rest.length > 0 && this.#outflow.window > 0 && !this.#link.congested && !this.#link.stopped) {
      const length = Math.min(this.#rest.length, this.#outflow.window, limits.framePayloadBytesMax);
      this.#outflow.sent(length);
      this.#link.send(frameTypes.DATA, this.#stream, this.#rest.subarray(0, length));
      this.#rest = this.#rest.subarray(length);
    }
    this.#sendEnd();
  }

  #sendEnd(): void {
    if (this.#over || this.#ended || !this.#ending || this.#rest.length > 0) return;
    this.#ended = true;
    const end = encodeEnd({ totalBytes: this.#outflow.sentBytes, truncated: false });
    this.#link.send(frameTypes.END, this.#stream, end);
    this.#finishIfOver();
  }

  #finishIfOver(): void {
    if (!this.#over && this.#ended && this.#inflow.ended) this.#finish(0);
  }

  #finish(unusedWindow: number): void {
    this.#over = true;
    this.#rest = Buffer.alloc(0);
    this.#onOver(unusedWindow);
  }
}
