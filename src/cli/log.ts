/**
 * The customer's log on its way to a terminal. It is hostile: escape sequences can retitle, recolour and rewrite what
 * an operator sees, so a terminal gets text without them; a file or a pipe gets the bytes as they are.
 */
import { StringDecoder } from 'node:string_decoder';
import { printableText } from '../core/json.ts';

export class TerminalText {
  readonly #decoder = new StringDecoder('utf8');

  /** What can be shown so far; a character whose bytes are not all here yet waits for the next chunk. */
  push(chunk: Buffer): string {
    return clean(this.#decoder.write(chunk));
  }
}

export function clean(text: string): string {
  return printableText(text, text.length);
}
