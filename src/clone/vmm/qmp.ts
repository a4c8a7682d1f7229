/**
 * QEMU's control protocol (QMP), client side: greeting, capabilities, replies matched by id, events, a timeout on every
 * command. No kept library exists on npm. The peer is a VMM that a hostile guest may have taken over, so lines are
 * bounded, unknown replies are ignored and nothing that it sends can make the client throw outside a command.
 */
import type { Duplex } from 'node:stream';
import { isObject } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import type { Clock } from '../../core/time.ts';

type QmpValue = null | boolean | number | string | readonly QmpValue[] | { readonly [key: string]: QmpValue };
export type QmpObject = { readonly [key: string]: QmpValue };

/** A command failed, timed out or the connection is gone. Internal to clone/vmm: callers see MayflyError. */
export class QmpError extends Error {
  override readonly name = 'QmpError';
}

interface Pending {
  readonly resolve: (value: QmpValue) => void;
  readonly reject: (error: QmpError) => void;
  readonly cancel: () => void;
}

interface Waiter {
  readonly matches: (event: string, data: QmpObject) => boolean;
  readonly pending: Pending;
}

export interface QmpOptions {
  readonly stream: Duplex;
  readonly clock: Clock;
  /** Called for every event, after those who wait for it. */
  readonly onEvent?: (event: string, data: QmpObject) => void;
}

export class Qmp {
  readonly #stream: Duplex;
  readonly #clock: Clock;
  readonly #onEvent: (event: string, data: QmpObject) => void;
  readonly #commands = new Map<number, Pending>();
  readonly #waiters = new Set<Waiter>();
  readonly #chunks: Buffer[] = [];
  #buffered = 0;
  #nextId = 1;
  #closed: QmpError | undefined;

  private constructor(options: QmpOptions) {
    this.#stream = options.stream;
    this.#clock = options.clock;
    this.#onEvent = options.onEvent ?? ((): void => {});
    this.#stream.on('data', (chunk: Buffer) => this.#receive(chunk));
    this.#stream.on('error', (error) => this.#close(`QMP connection failed: ${error.message}`));
    this.#stream.on('close', () => this.#close('QMP connection closed'));
  }

  /** Waits for the greeting and negotiates. Rejects with QmpError. */
  static async open(options: QmpOptions): Promise<Qmp> {
    const qmp = new Qmp(options);
    await qmp.#wait((event) => event === GREETING, limits.vmmStartMillisMax, 'its QMP greeting');
    await qmp.execute('qmp_capabilities');
    return qmp;
  }

  /** Runs one command; resolves with its `return` value. Rejects with QmpError, also when `millis` have passed. */
  execute(command: string, args: QmpObject = {}, millis: number = limits.qmpCommandMillisMax): Promise<QmpValue> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const cancel = this.#clock.after(millis, () => {
        this.#commands.delete(id);
        reject(new QmpError(`${command}: no reply within ${millis} ms`));
      });
      const named = (error: QmpError): void => reject(new QmpError(`${command}: ${error.message}`));
      this.#commands.set(id, { resolve, reject: named, cancel });
      this.#stream.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    });
  }

  /** Resolves with the data of the next event that matches. Rejects with QmpError after `millis`. */
  async waitFor(
    matches: (event: string, data: QmpObject) => boolean,
    what: string,
    millis: number = limits.qmpCommandMillisMax,
  ): Promise<QmpObject> {
    return this.#wait(matches, millis, what);
  }

  #wait(matches: Waiter['matches'], millis: number, what: string): Promise<QmpObject> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    return new Promise((resolve, reject) => {
      const cancel = this.#clock.after(millis, () => {
        this.#waiters.delete(waiter);
        reject(new QmpError(`waited ${millis} ms for ${what}`));
      });
      const pending: Pending = { resolve: (value) => resolve(value as QmpObject), reject, cancel };
      const waiter: Waiter = { matches, pending };
      this.#waiters.add(waiter);
    });
  }

  #receive(chunk: Buffer): void {
    let rest = chunk;
    for (let end = rest.indexOf(0x0a); end !== -1; end = rest.indexOf(0x0a)) {
      this.#chunks.push(rest.subarray(0, end));
      this.#line(Buffer.concat(this.#chunks).toString('utf8'));
      this.#chunks.length = 0;
      this.#buffered = 0;
      rest = rest.subarray(end + 1);
    }
    this.#chunks.push(rest);
    this.#buffered += rest.length;
    if (this.#buffered > limits.qmpLineBytesMax) {
      this.#close(`QMP line longer than ${limits.qmpLineBytesMax} bytes`);
      this.#stream.destroy();
    }
  }

  #line(line: string): void {
    let message: QmpValue;
    try {
      message = JSON.parse(line) as QmpValue;
    } catch {
      return;
    }
    if (!isObject(message)) return;
    if ('QMP' in message) return this.#event(GREETING, message);
    if (typeof message['event'] === 'string') {
      return this.#event(message['event'], isObject(message['data']) ? message['data'] : {});
    }
    const id = message['id'];
    const pending = typeof id === 'number' ? this.#commands.get(id) : undefined;
    if (pending === undefined) return;
    this.#commands.delete(id as number);
    pending.cancel();
    if (isObject(message['error'])) pending.reject(new QmpError(String(message['error']['desc'])));
    else pending.resolve(message['return'] ?? null);
  }

  #event(event: string, data: QmpObject): void {
    for (const waiter of this.#waiters) {
      if (!waiter.matches(event, data)) continue;
      this.#waiters.delete(waiter);
      waiter.pending.cancel();
      waiter.pending.resolve(data);
    }
    this.#onEvent(event, data);
  }

  #close(reason: string): void {
    if (this.#closed !== undefined) return;
    this.#closed = new QmpError(reason);
    for (const pending of [...this.#commands.values(), ...[...this.#waiters].map((waiter) => waiter.pending)]) {
      pending.cancel();
      pending.reject(this.#closed);
    }
    this.#commands.clear();
    this.#waiters.clear();
  }
}

/** The greeting has no event name of its own; this one cannot collide with QEMU's upper-case names. */
const GREETING = 'greeting';
