/**
 * What a stream speaks, from the first bytes of its client. Pure. The question is never what a well-behaved client
 * would send but what a server might take for HTTP or TLS: leading line ends, for one, are skipped by most of them.
 */
import { limits } from '../core/limits.ts';

/** `wait`: only more bytes can tell. `tcp`: neither TLS nor HTTP. */
export type Sniffed = 'wait' | 'tls' | 'http1' | 'http2' | 'tcp';

const LINE_FEED = 10;
const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';

export function sniff(bytes: Buffer): Sniffed {
  const [first, second, third, fourth] = bytes;
  if (first === undefined) return 'wait';
  if (first === 0x16) return second === undefined ? 'wait' : second === 3 ? 'tls' : 'tcp';
  // The ClientHello of SSL 2, which servers still read as a way to begin TLS.
  if (first >= 0x80) return fourth === undefined ? 'wait' : third === 1 && fourth <= 3 ? 'tls' : 'tcp';
  let start = 0;
  while (start < bytes.length && isBlank(bytes[start])) start++;
  if (start === bytes.length) return start > 256 ? 'tcp' : 'wait';
  const end = bytes.indexOf(LINE_FEED, start);
  const line = bytes.subarray(start, end === -1 ? start + limits.httpHeadBytesMax : end).toString('latin1');
  if (start === 0 && PREFACE.startsWith(line.slice(0, 14)) && bytes.length < PREFACE.length) {
    if (PREFACE.startsWith(bytes.toString('latin1'))) return 'wait';
  }
  if (bytes.subarray(0, PREFACE.length).toString('latin1') === PREFACE) return 'http2';
  if (/HTTP\/\d/i.test(line) && !hasControls(line)) return 'http1';
  if (end !== -1 || line.length >= limits.httpHeadBytesMax) return 'tcp';
  return /^[A-Z]{1,24}(?: .*)?$/.test(line) && !hasControls(line) ? 'wait' : 'tcp';
}

function isBlank(byte: number | undefined): boolean {
  return byte === 13 || byte === LINE_FEED || byte === 32 || byte === 9;
}

function hasControls(line: string): boolean {
  return /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/.test(line);
}

/**
 * A stream that passed as neither: while its first line is not over it must not turn into the request line of HTTP, for
 * instance because its client paused in the middle.
 */
export class FirstLine {
  #tail = '';
  #over = false;

  /** False when these bytes make it HTTP. */
  allows(bytes: Buffer): boolean {
    if (this.#over) return true;
    // Line ends before the first line do not count.
    const text = this.#tail + bytes.toString('latin1');
    const line = text.replace(/^[\r\n\t ]+/, '');
    const end = line.search(/[\x00-\x08\x0a-\x0c\x0e-\x1f\x7f]/);
    if (/HTTP\/\d/i.test(end === -1 ? line : line.slice(0, end))) return false;
    this.#over = end !== -1;
    this.#tail = line === '' ? '' : `x${line.slice(-6)}`;
    return true;
  }
}
