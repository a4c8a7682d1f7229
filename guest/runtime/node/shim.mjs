/**
 * The Node runtime of a clone. It starts in the template, loads and runs through everything that an event will need,
 * says "ready" on fd 4 and waits for fd 3. Then it is part of the template's memory. In a clone the wait ends:
 * randomness is renewed; later the event comes, the customer's handler is loaded and called, and its result leaves on
 * fd 4. docs/FORMATS.md, "Runtime channel", has the format.
 */
import { closeSync, copyFileSync, mkdtempSync, readSync, rmSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import util from 'node:util';
import vm from 'node:vm';
import { rehearseRenewal, renewRandomness } from './random.mjs';

const REQUEST_FD = 3;
const RESULT_FD = 4;
const RENEW = 'renew\n';
const CHUNK_BYTES = 65_536;
const WARM_ROUNDS = 10;
const REHEARSAL_ROUNDS = 3;
const SAMPLE_EVENT = '{"specversion":"1.0","id":"1","data":{"a":[1,"b",null]}}';
/** Error text is for people: what is beyond this is cut, UTF-16 units. */
const STACK_UNITS_MAX = 16_384;
const CAUSES_MAX = 5;
const KEY_UNITS_MAX = 100;

/** The template of the image `web` has gone through an exchange of HTTP. */
const WEB = process.argv.includes('web');

const require = createRequire(import.meta.url);
const own = new URL('.', import.meta.url).href;
const FOREIGN = [own, fileURLToPath(own), 'node:internal/', 'node:diagnostics_channel'];
const rethrow = new vm.Script('throw mayflyError');
let answered = false;
let serving = false;

// ---- fd 3 and fd 4 --------------------------------------------------------------------------------------------------

/** Waits for the agent's word as long as it takes. */
function awaitRenewal() {
  const word = Buffer.alloc(RENEW.length);
  for (let length = 0; length < word.length; ) {
    const got = readSync(REQUEST_FD, word, length, word.length - length, null);
    if (got === 0) process.reallyExit(1);
    length += got;
  }
  if (word.toString() !== RENEW) process.reallyExit(1);
}

/** What was read beyond the first line. */
let ahead = Buffer.alloc(0);

/** What is there, after waiting for it; empty at end of file. */
function readChunk() {
  const chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  return chunk.subarray(0, readSync(REQUEST_FD, chunk, 0, CHUNK_BYTES, null));
}

/** The first line: which function it is. The event may come much later. */
function readHead() {
  let bytes = readChunk();
  let lineEnd = bytes.indexOf(0x0a);
  while (lineEnd < 0) {
    const chunk = readChunk();
    if (chunk.length === 0) process.reallyExit(1);
    bytes = Buffer.concat([bytes, chunk]);
    lineEnd = bytes.indexOf(0x0a);
  }
  ahead = bytes.subarray(lineEnd + 1);
  return parseHead(bytes.toString('utf8', 0, lineEnd));
}

function parseHead(line) {
  const { handler, env, rehearse, serve } = JSON.parse(line);
  // This process started in the template: what the caller sets is set before anything of the function is loaded.
  if (env !== undefined) Object.assign(process.env, env);
  return { handler, rehearse, serve };
}

/** Everything until end of file. */
function readRequest() {
  const chunks = ahead.length > 0 ? [ahead] : [];
  for (let chunk = readChunk(); chunk.length > 0; chunk = readChunk()) chunks.push(chunk);
  closeSync(REQUEST_FD);
  // An event that came in one piece, as most do, is not copied.
  return chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
}

function parseRequest(bytes) {
  const lineEnd = bytes.indexOf(0x0a);
  const context = JSON.parse(bytes.toString('utf8', 0, lineEnd));
  return { context, event: JSON.parse(bytes.toString('utf8', lineEnd + 1)) };
}

function writeAll(text) {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; ) at += writeSync(RESULT_FD, bytes, at);
}

/** The answer leaves once; the agent ends the process as soon as fd 4 is closed. */
function answer(text) {
  if (answered) return;
  answered = true;
  writeAll(text);
  closeSync(RESULT_FD);
  process.reallyExit(0);
}

// ---- the call -------------------------------------------------------------------------------------------------------

/** An error with the phase it belongs to. */
class Failure {
  constructor(phase, error) {
    this.phase = phase;
    this.error = error;
  }
}

/** Loads the function, then waits for its event: `read` gives the request's bytes. */
async function respond({ handler: path, rehearse }, read) {
  try {
    const handler = await load(path);
    if (rehearse) await rehearseCall();
    const { context, event } = parseRequest(read());
    const value = await call(handler, event, context);
    return `{"ok":true,"value":${encode(value)}}`;
  } catch (failure) {
    return describe(failure);
  }
}

/** A server answers over the network; the host ends it. Only a failure to load has an answer here. */
async function serve({ handler: path, rehearse }) {
  serving = true;
  try {
    await loadModule(path);
  } catch (error) {
    return describe(new Failure('load', error));
  }
  if (rehearse) writeAll(' ');
  return await new Promise(() => {});
}

/**
 * In a clone that has time before its event: what is between request and answer runs once, with no code of the
 * customer, so that the machine below has translated it by then.
 */
async function rehearseCall() {
  const sample = `{"runId":"","deadlineMillis":0,"memoryBytes":1,"image":""}\n${SAMPLE_EVENT}`;
  for (let round = 0; round < REHEARSAL_ROUNDS; round++) {
    const { context, event } = parseRequest(Buffer.from(sample));
    encode(await call(async (given) => ({ given }), event, context));
  }
  // Blanks before JSON mean nothing; this one tells the host that this clone is ready.
  writeAll(' ');
}

async function load(path) {
  try {
    const module = await loadModule(path);
    const inner = module.default;
    for (const candidate of [module, inner, module.handler, inner?.handler, inner?.default]) {
      if (typeof candidate === 'function') return candidate;
    }
    const exported = Object.keys(module).join(', ') || 'nothing';
    const remedy = 'write `export default`, `export const handler` or `module.exports`';
    throw new TypeError(`${path} exports no function (it exports ${exported}): ${remedy}`);
  } catch (error) {
    throw new Failure('load', error);
  }
}

/**
 * require() loads ES modules as well, and without the event loop and the thread pool that import() goes through: under
 * software emulation that is half of the time to the first result. Modules with a top-level await need import().
 */
async function loadModule(path) {
  try {
    return require(path);
  } catch (error) {
    if (error?.code !== 'ERR_REQUIRE_ASYNC_MODULE') throw error;
    return await import(pathToFileURL(path).href);
  }
}

async function call(handler, event, { runId, deadlineMillis, memoryBytes, image }) {
  const context = {
    runId,
    deadlineMillis,
    memoryBytes,
    image,
    getRemainingTimeMillis: () => Math.max(0, deadlineMillis - Date.now()),
  };
  try {
    return await handler(event, context);
  } catch (error) {
    throw new Failure('call', error);
  }
}

function encode(value) {
  if (value === undefined) return 'null';
  try {
    const text = JSON.stringify(value);
    if (text === undefined) throw new TypeError(`a ${typeof value} cannot be a result`);
    // JSON.stringify makes `null` of what JSON cannot say. To look closer costs time: only where there is one.
    if (text.includes('null')) JSON.stringify(value, refuseNonNumbers);
    return text;
  } catch (error) {
    throw new Failure('result', error);
  }
}

function refuseNonNumbers(key, value) {
  if (typeof value !== 'number' || Number.isFinite(value)) return value;
  const place = key === '' ? '' : ` (at "${key.slice(0, KEY_UNITS_MAX)}")`;
  throw new RangeError(`${value}${place} cannot be a result: JSON has no such number`);
}

// ---- errors ---------------------------------------------------------------------------------------------------------

function describe({ phase, error }) {
  return JSON.stringify({ ok: false, phase, error: isError(error) ? errorOf(error, phase) : strayOf(error) });
}

function errorOf(error, phase) {
  return {
    name: text(() => error.name) ?? 'Error',
    message: withoutImporter(text(() => error.message) ?? ''),
    stack: stack(error, phase),
    code: text(() => error.code),
  };
}

function strayOf(thrown) {
  const shown = text(() => util.inspect(thrown)) ?? 'Something';
  return { name: 'Error', message: `${shown} was thrown, which is no Error`, stack: '' };
}

/** Also of another realm (vm contexts). */
function isError(thrown) {
  return util.types.isNativeError(thrown) || thrown instanceof Error;
}

/** Properties of a thrown object are the customer's code: they may throw again or be anything. */
function text(read) {
  try {
    const value = read();
    return value === undefined || value === null ? undefined : String(value).slice(0, STACK_UNITS_MAX);
  } catch {
    return undefined;
  }
}

/** That this file loaded the handler is of no interest. */
function withoutImporter(said) {
  const path = new URL(import.meta.url).pathname;
  const without = said.replace(` imported from ${path}`, '').replaceAll(`\n- ${path}`, '');
  return without.replace(/\nRequire stack:(?!\n- )/, '');
}

function stack(error, phase) {
  if (phase === 'load' && error instanceof SyntaxError) locate(error);
  let all = '';
  let cause = error;
  for (let depth = 0; depth < CAUSES_MAX && isError(cause); depth++) {
    const lines = (text(() => cause.stack) ?? '').split('\n').filter((line) => !isForeignFrame(line));
    all += `${depth === 0 ? '' : '\nCaused by: '}${lines.join('\n')}`;
    const inner = cause;
    cause = undefined;
    try {
      cause = inner.cause;
    } catch {}
  }
  return withoutImporter(all).slice(0, STACK_UNITS_MAX);
}

/** Frames of this file and of Node's internals say nothing about the customer's code. */
function isForeignFrame(line) {
  return /^ {4}at /.test(line) && FOREIGN.some((part) => line.includes(part));
}

/**
 * Node knows file, line and column of a syntax error in an ES module, but keeps them in a private property that it only
 * prints when it dies. A script that rethrows the error makes it put them into the stack.
 */
function locate(error) {
  globalThis.mayflyError = error;
  try {
    rethrow.runInThisContext({ displayErrors: true });
  } catch {
    // The same error, with its location.
  } finally {
    delete globalThis.mayflyError;
  }
}

// ---- life -----------------------------------------------------------------------------------------------------------

function listenForStrays() {
  process.on('uncaughtException', (error) => answer(describe(new Failure('call', error))));
  process.on('unhandledRejection', (error) => answer(describe(new Failure('call', error))));
  process.on('beforeExit', () => {
    if (serving) return answer(describe(new Failure('load', new Error('It was to be a server and listens nowhere.'))));
    const error = new Error('The handler returned a promise that nothing is left to settle.');
    error.stack = '';
    error.code = 'ERR_UNSETTLED';
    answer(describe(new Failure('call', error)));
  });
}

/**
 * Everything that the real event will do is done before: what was loaded and compiled by then is in the template. A few
 * rounds let V8's inline caches settle, which saves as much as a tenth of the time of the first event.
 *
 * What it prints, the agent drops.
 */
async function warmUp() {
  const context = { runId: 'warm', deadlineMillis: Date.now() + 1000, memoryBytes: 1, image: 'node' };
  const request = Buffer.from(`${JSON.stringify(context)}\n${SAMPLE_EVENT}`);
  const rehearse = (handler) => respond(parseHead(JSON.stringify({ handler })), () => request);
  const folder = mkdtempSync('/tmp/warm-');
  for (let round = 0; round < WARM_ROUNDS; round++) {
    // A path that was loaded once comes from the cache the next time.
    const copy = `${folder}/${round}.mjs`;
    copyFileSync(new URL('warm.mjs', own), copy);
    await rehearse(copy);
    rehearseRenewal();
  }
  rmSync(folder, { recursive: true });
  await rehearse(new URL('warm.cjs', own).pathname);
  await rehearse('/function/missing.mjs');
  for (let round = 0; WEB && round < REHEARSAL_ROUNDS; round++) await rehearseExchange();
  console.log('');
  console.error('');
}

/** What servers import. To import node:http alone loads undici, seconds of work under software emulation. */
const SERVER_MODULES = ['node:fs', 'node:fs/promises', 'node:http', 'node:net', 'node:path', 'node:stream', 'node:url'];

/** One request to a server of its own; both are gone afterwards. */
async function rehearseExchange() {
  for (const name of SERVER_MODULES) await import(name);
  const http = require('node:http');
  const { readFile } = require('node:fs/promises');
  const server = http.createServer(async (request, response) => {
    const { searchParams } = new URL(`${request.url}?a=b`, 'http://warm.invalid');
    await readFile(new URL('warm.cjs', own));
    response.writeHead(200, { 'content-type': 'text/plain', 'x-warm': searchParams.get('a') });
    request.pipe(response);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const options = { port: server.address().port, host: '127.0.0.1', method: 'POST', agent: false };
  await new Promise((resolve, reject) => {
    const client = http.request(options, (response) => response.resume().on('end', resolve));
    client.on('error', reject).end('warm');
  });
  await new Promise((resolve) => server.close(resolve));
}

/** Node queues what a full pipe does not take, and would lose it with the end of the process. */
function writeLogsAtOnce() {
  for (const stream of [process.stdout, process.stderr]) stream._handle.setBlocking(true);
}

async function main() {
  writeLogsAtOnce();
  await warmUp();
  writeAll('ready\n');
  awaitRenewal();
  // ---- In a clone from here on. ----
  try {
    renewRandomness();
  } catch (error) {
    answer(describe(new Failure('renew', error)));
  }
  writeAll('renewed\n');
  const head = readHead();
  listenForStrays();
  answer(await (head.serve ? serve(head) : respond(head, readRequest)));
}

main();
