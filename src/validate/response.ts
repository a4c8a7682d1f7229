/**
 * What a server in a clone has answered, as the run's output: status, headers and body in one JSON object, or the
 * body's bytes alone. A body that says it is JSON has to be JSON; a type has to be one.
 */
import { isUtf8 } from 'node:buffer';
import { parseStrict } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { ServerAnswer } from './execution.ts';

type Answered = Extract<ServerAnswer, { readonly ok: true }>;

export type ResponseOutput =
  | { readonly ok: true; readonly output: Buffer }
  | { readonly ok: false; readonly code: 'E_SERVER_RESPONSE' | 'E_OUTPUT_TOO_LARGE'; readonly message: string };

/** Headers of the connection that the answer came through. */
const OF_THE_CONNECTION: ReadonlySet<string> = new Set([
  'connection', 'keep-alive', 'proxy-connection', 'trailer', 'transfer-encoding', 'upgrade',
]);

/** RFC 9110: type/subtype, then parameters. */
const MEDIA_TYPE = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,127}\/[!#$%&'*+.^_`|~0-9A-Za-z-]{1,127}[ \t]*(;|$)/;
const JSON_TYPE = /^(application|text)\/([a-z0-9.+-]+\+)?json[ \t]*(;|$)/i;

/** `outputBytes`: the most that a result may have. */
export function responseOutput(answer: Answered, raw: boolean, outputBytes: number): ResponseOutput {
  const { status, headers, body } = answer;
  if (status < 200 || status > 599) return refused(`its status is ${status}`);
  const types = headers.filter(([name]) => name === 'content-type').map(([, value]) => value);
  const [type = ''] = types;
  if (types.length > 1) return refused('it has two content types');
  if (types.length === 1 && !MEDIA_TYPE.test(type)) return refused('its content type is none');
  if (JSON_TYPE.test(type) && body.length > 0) {
    const parsed = parseStrict(body, { bytesMax: outputBytes, depthMax: limits.outputDepthMax });
    if (!parsed.ok) return refused('its body says that it is JSON and is not');
  }
  if (raw) return { ok: true, output: body };
  const shown: Record<string, string | string[]> = Object.create(null) as Record<string, string | string[]>;
  for (const [name, value] of headers) {
    if (OF_THE_CONNECTION.has(name)) continue;
    const known = shown[name];
    // Cookies are the one header whose values cannot be joined.
    if (name === 'set-cookie') shown[name] = [...(Array.isArray(known) ? known : []), value];
    else shown[name] = typeof known === 'string' ? `${known}, ${value}` : value;
  }
  const content = isUtf8(body) ? { body: body.toString('utf8') } : { bodyBase64: body.toString('base64') };
  const output = Buffer.from(JSON.stringify({ status, headers: shown, ...content }));
  if (output.length <= outputBytes) return { ok: true, output };
  const message = `The answer, as JSON, has more than ${outputBytes} bytes.`;
  return { ok: false, code: 'E_OUTPUT_TOO_LARGE', message };
}

function refused(why: string): ResponseOutput {
  return { ok: false, code: 'E_SERVER_RESPONSE', message: `The server's answer is not usable: ${why}.` };
}
