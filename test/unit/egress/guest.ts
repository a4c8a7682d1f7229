/** The guest's end of connections in tests of the broker: told and read without a VM. */
import { Duplex } from 'node:stream';
import packet from 'dns-packet';
import type { EgressBroker } from '../../../src/egress/broker.ts';
import type { GuestEnd, WorldEnd } from '../../../src/egress/contract.ts';

/**
 * A socket as a program in the guest has it, on a broker: accepted, refused and reset as the bridge would. Errors are
 * `ECONNREFUSED` before the connection is there, `ECONNRESET` after it.
 */
export class GuestSocket extends Duplex {
  readonly #world: WorldEnd;
  #accepted = false;
  #window = 0;
  #waiting: (() => void) | undefined;
  /** Bytes that the broker holds. */
  held = 0;

  constructor(broker: EgressBroker, address: string, port: number) {
    super({ allowHalfOpen: true });
    const guest: GuestEnd = {
      accept: () => {
        this.#accepted = true;
        this.emit('connect');
        this.#goOn();
      },
      write: (chunk) => {
        this.#window += chunk.length;
        return this.push(Buffer.from(chunk));
      },
      end: () => void this.push(null),
      reset: (reason) => {
        const code = this.#accepted ? 'ECONNRESET' : 'ECONNREFUSED';
        this.destroy(Object.assign(new Error(`${code} ${reason}`), { code, reason }));
      },
      used: (bytes) => {
        this.held -= bytes;
        this.#goOn();
      },
    };
    this.#world = broker.open({ address, port }, guest);
  }

  setTimeout(): this { return this; }
  setNoDelay(): this { return this; }
  setKeepAlive(): this { return this; }
  ref(): this { return this; }
  unref(): this { return this; }

  #goOn(): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.();
  }

  override _read(): void {
    this.#world.writable();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const send = (): void => {
      if (!this.#accepted || this.held > 64_000) {
        this.#waiting = send;
        return;
      }
      this.held += chunk.length;
      this.#world.data(chunk);
      done();
    };
    send();
  }

  override _final(done: () => void): void {
    const finish = (): void => {
      if (!this.#accepted) {
        this.#waiting = finish;
        return;
      }
      this.#world.end();
      done();
    };
    finish();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (error === null && !(this.readableEnded && this.writableFinished)) this.#world.reset();
    done(error);
  }
}

/** The address that stands for a name, empty when there is none. */
export function lookUp(broker: EgressBroker, name: string): string {
  const query = packet.encode({ type: 'query', id: 1, questions: [{ type: 'A', name }] });
  const [answer] = packet.decode(broker.query(query) ?? Buffer.alloc(12)).answers ?? [];
  return answer?.type === 'A' ? answer.data : '';
}

/** Everything that a socket says until its end, or the code of its error after what came before. */
export async function readAll(socket: Duplex): Promise<string> {
  let text = '';
  return await new Promise((resolve) => {
    socket.on('data', (chunk: Buffer) => { text += chunk.toString('latin1'); });
    socket.on('end', () => resolve(text));
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(`${text}[${error.code}]`));
  });
}
