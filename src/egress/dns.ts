/**
 * The resolver that a clone talks to. It asks nobody: an allowed name gets an address that stands for it in this run
 * only, and the name is resolved when something connects there. So no query of a guest ever leaves the host, a name has
 * one meaning from the answer to the dial, and what a name's owner answers later cannot change where it leads. Pure.
 */
import packet from 'dns-packet';
import type { Answer, Packet } from 'dns-packet';
import { entropyOf } from '../core/entropy.ts';
import { limits } from '../core/limits.ts';
import { parseHost } from './host.ts';

/** Addresses in answers are 198.18.N.N, of the block for benchmarks: nobody's on any network. */
const POOL = '198.18';
const TTL_SECONDS = 60;
const RECURSION_AVAILABLE = 1 << 7;
const RECURSION_DESIRED = 1 << 8;
const ASCII_NAME = /^[\x21-\x7e]*$/;
const RCODE = { ok: 0, malformed: 1, failed: 2, unknownName: 3, notImplemented: 4 } as const;

/** The run's names and the addresses that stand for them. */
export class Names {
  readonly #addresses = new Map<string, string>();
  readonly #names = new Map<string, string>();

  /** Undefined when there are too many. */
  addressOf(name: string): string | undefined {
    const known = this.#addresses.get(name);
    if (known !== undefined) return known;
    const number = this.#addresses.size + 1;
    if (number > limits.egressNamesMax) return undefined;
    const address = `${POOL}.${number >> 8}.${number & 0xff}`;
    this.#addresses.set(name, address);
    this.#names.set(address, name);
    return address;
  }

  /** The name that an address stands for. */
  nameOf(address: string): string | undefined {
    return this.#names.get(address);
  }
}

export interface Asked {
  /** Canonical, or undefined when it is no host name. */
  readonly name: string | undefined;
  readonly type: string;
}

export interface Reply {
  /** Undefined for what gets no answer at all. */
  readonly message: Buffer | undefined;
  /** Undefined when the message asks nothing that can be judged. */
  readonly asked: Asked | undefined;
  readonly allowed: boolean;
}

/** `isAllowed` judges a canonical name. Never throws. */
export function answerQuery(message: Buffer, names: Names, isAllowed: (name: string) => boolean): Reply {
  const nothing = { message: undefined, asked: undefined, allowed: false };
  let query: Packet;
  try {
    query = packet.decode(message);
  } catch {
    return message.length < 12 ? nothing : { ...nothing, message: bare(message, RCODE.malformed) };
  }
  // An answer to an answer would never end.
  if (query.type !== 'query') return nothing;
  const { opcode } = query as { opcode?: unknown };
  const [question, more] = query.questions ?? [];
  if (opcode !== undefined && opcode !== 'QUERY') return { ...nothing, message: bare(message, RCODE.notImplemented) };
  if (question === undefined || more !== undefined || (question.class ?? 'IN') !== 'IN') {
    return { ...nothing, message: bare(message, RCODE.malformed) };
  }
  // Bytes that are no ASCII would be echoed as others, and more of them: the answer would be no DNS message any more.
  if (!ASCII_NAME.test(question.name)) return { ...nothing, message: bare(message, RCODE.unknownName) };
  const host = parseHost(question.name);
  const name = host?.kind === 'name' ? host.name : undefined;
  const asked = { name, type: String(question.type) };
  const reply = (rcode: number, answers: Answer[] = []): Buffer | undefined => {
    try {
      const flags = rcode | RECURSION_AVAILABLE | ((query.flags ?? 0) & RECURSION_DESIRED);
      return packet.encode({ type: 'response', id: query.id ?? 0, flags, questions: [question], answers });
    } catch {
      return bare(message, RCODE.malformed);
    }
  };
  if (name === undefined || !isAllowed(name)) return { asked, allowed: false, message: reply(RCODE.unknownName) };
  // Other types exist but have nothing: no AAAA, no HTTPS with keys for ECH, no TXT to carry anything.
  if (question.type !== 'A') return { asked, allowed: true, message: reply(RCODE.ok) };
  const address = names.addressOf(name);
  if (address === undefined) return { asked, allowed: false, message: reply(RCODE.failed) };
  const answers: Answer[] = [{ type: 'A', name: question.name, ttl: TTL_SECONDS, class: 'IN', data: address }];
  return { asked, allowed: true, message: reply(RCODE.ok, answers) };
}

/** A header with nothing after it. */
function bare(message: Buffer, rcode: number): Buffer {
  const header = Buffer.alloc(12);
  message.copy(header, 0, 0, 2);
  header.writeUInt16BE(0x8000 | RECURSION_AVAILABLE | rcode, 2);
  return header;
}

/** Names that carry data rather than lead somewhere: long, or with labels that look like random characters. */
export function looksLikeTunnel(name: string): boolean {
  if (name.length > 120) return true;
  return name.split('.').some((label) => {
    return label.length > 40 || (label.length >= 24 && entropyOf(Buffer.from(label)) > 3.8);
  });
}
