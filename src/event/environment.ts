/**
 * Environment variables that a caller gives to a function. An executable gets them with its own start; a warm runtime
 * has started long ago, so it is told and sets them before it loads the handler. They may hold secrets: no record and
 * no journal has them.
 */
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';

/** Names and values; every name once. */
export type Environment = ReadonlyMap<string, string>;

/** From `NAME=value` as the command line has them; the last of one name counts. Throws E_USAGE, E_LIMIT_INVALID. */
export function parseEnvironment(given: readonly string[]): Environment {
  const environment = new Map<string, string>();
  let bytes = 0;
  for (const each of given) {
    const [, name, value] = /^([A-Za-z_][A-Za-z0-9_]*)=([^\0]*)$/.exec(each) ?? [];
    // Never the value in a message: it may be a secret, and the name alone tells which one is meant.
    if (name === undefined || value === undefined) throw notAPair(each);
    environment.set(name, value);
    bytes += Buffer.byteLength(each);
  }
  if (given.length > limits.envEntriesMax) throw tooMuch(`${given.length} variables`, `${limits.envEntriesMax}`);
  if (bytes > limits.envBytesMax) throw tooMuch(`${bytes} bytes of names and values`, `${limits.envBytesMax}`);
  return environment;
}

function notAPair(given: string): MayflyError {
  const name = given.split('=', 1)[0] ?? '';
  const fault = given.includes('=')
    ? 'a name has letters, digits and underscores, and does not begin with a digit'
    : 'it has no value';
  return new MayflyError('E_USAGE', `--env ${name.slice(0, 60)}: ${fault}`, { remedy: 'Write `--env NAME=value`.' });
}

function tooMuch(found: string, most: string): MayflyError {
  return new MayflyError('E_LIMIT_INVALID', `--env: ${found}, at most ${most}`, {
    remedy: 'Ship larger configuration as a file beside the handler, or send it in the event.',
  });
}
