/**
 * One HTTP request to a server in the guest, and its answer. The client is Node's own, with its strict parser; what it
 * speaks through is a connection of the bridge. Whatever the server does ends in a value: it is the guest's doing, and
 * never the host's failure.
 */
import { request as httpRequest } from 'node:http';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { Clock } from '../core/time.ts';
import type { HttpRequest } from '../event/http.ts';
import type { ServerAnswer } from '../validate/execution.ts';
import type { Door } from './door.ts';

export interface ExchangeOptions {
  readonly door: Door;
  readonly port: number;
  readonly request: HttpRequest;
  readonly clock: Clock;
  /** Until somebody listens, ms; `limits.serverReadyMillisMax` unless given. */
  readonly readyMillis?: number;
  /** Body of the answer, bytes. */
  readonly bytesMax: number;
}

type Failed = Extract<ServerAnswer, { readonly ok: false }>;

/** Never rejects. Ends when the door closes, whoever closes it. */
export async function exchange(options: ExchangeOptions): Promise<ServerAnswer> {
  const { door, port, clock, readyMillis = limits.serverReadyMillisMax } = options;
  // What breaks the connection is told by the client; a door that nobody uses any more must not end the process.
  door.on('error', () => {});
  let late = false;
  const cancel = clock.after(readyMillis, () => {
    late = true;
    door.destroy();
  });
  const isOpen = await door.isOpen;
  cancel();
  if (!isOpen) {
    const why = late ? `within ${readyMillis} ms` : 'before the function ended';
    return failure('E_SERVER_NOT_LISTENING', `Nothing listened on port ${port} ${why}.`);
  }
  const answer = await ask(options);
  door.destroy();
  return answer;
}

async function ask({ door, port, request, bytesMax }: ExchangeOptions): Promise<ServerAnswer> {
  return await new Promise((resolve) => {
    const end = (answer: ServerAnswer): void => {
      resolve(answer);
      client.destroy();
    };
    const { method, path, headers, body } = request;
    const client: ClientRequest = httpRequest({
      createConnection: () => door,
      method, path, maxHeaderSize: limits.httpHeaderBytesMax, insecureHTTPParser: false, setDefaultHeaders: false,
    });
    for (const [name, value] of headers) client.setHeader(name, value);
    if (!headers.has('host')) client.setHeader('host', `127.0.0.1:${port}`);
    client.setHeader('connection', 'close');
    if (body.length > 0 || method !== 'GET') client.setHeader('content-length', body.length);
    let informed = 0;
    client.on('information', () => {
      if (++informed > limits.httpInformationMax) end(broken('it only says that it goes on'));
    });
    client.on('upgrade', () => end(broken('it changes to another protocol')));
    client.on('error', (error: NodeJS.ErrnoException) => end(broken(wordsFor(error))));
    client.on('response', (response) => collect(response, bytesMax, end));
    client.end(body);
  });
}

function collect(response: IncomingMessage, bytesMax: number, end: (answer: ServerAnswer) => void): void {
  const chunks: Buffer[] = [];
  let bytes = 0;
  response.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    // A copy: a chunk may be a small part of what the bridge has read at once.
    chunks.push(Buffer.from(chunk));
    if (bytes > bytesMax || chunks.length > limits.httpChunksMax) {
      end(failure('E_OUTPUT_TOO_LARGE', `The answer has more than ${bytesMax} bytes, or too many pieces.`));
    }
  });
  response.on('error', (error: NodeJS.ErrnoException) => end(broken(wordsFor(error))));
  response.on('end', () => {
    if (!response.complete) return end(broken('it ends in the middle of its body'));
    const headers: [string, string][] = [];
    for (let at = 0; at + 1 < response.rawHeaders.length; at += 2) {
      headers.push([(response.rawHeaders[at] ?? '').toLowerCase(), response.rawHeaders[at + 1] ?? '']);
    }
    end({ ok: true, status: response.statusCode ?? 0, headers, body: Buffer.concat(chunks) });
  });
}

/** The parser's word for what it met, without the bytes. */
function wordsFor(error: NodeJS.ErrnoException): string {
  const { code = '' } = error;
  if (code === 'ECONNRESET') return 'the connection ends before it is complete';
  if (code === 'HPE_HEADER_OVERFLOW') return `its head has more than ${limits.httpHeaderBytesMax} bytes`;
  return printableLine(`${error.message} (${code})`, 200);
}

function broken(why: string): Failed {
  return failure('E_SERVER_RESPONSE', `The server's answer is not one of HTTP: ${why}.`);
}

function failure(code: Failed['code'], message: string): Failed {
  return { ok: false, code, message };
}
