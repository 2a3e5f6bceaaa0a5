'use strict';
/*
The action proxy of the nodejs kinds: one program, no package, node 18 or later.

    node proxy.js DIRECTORY

The start-up contract is that of ../python/proxy.py, word for word: FIFOs, run.sock, the line that
says ready, the leash.  What differs:

- Any connection may ask for a run, and runs of several connections overlap where the function
  waits.  Only the first connection is the host's: the proxy ends when it closes.
- Functions share their thread with the proxy.  While one computes, nobody is answered; that the
  host is gone is then seen by a thread of its own, within LEASH_MS.

Archives are unpacked here, and `npm install` is never run: what a function needs is in its archive.
*/

const fs = require('fs');
const net = require('net');
const path = require('path');
const vm = require('vm');
const { createRequire } = require('module');
const { Writable } = require('stream');

const READY_LINE = 'XXX_THE_ACTION_PROXY_LISTENS_XXX\n';
const SENTINEL_LINE = 'XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX\n';

const HEAD_BYTES_MAX = 16 * 1024;
const BODY_BYTES_MAX = 64 * 1024 * 1024; // code of 48 MB, the largest that upstream takes, in JSON
const UNPACKED_BYTES_MAX = 512 * 1024 * 1024; // of an archive, against one that claims to be small
const LEASH_MS = 1000;
const LEASH_LOOKS = 4; // for a sign of life within the time that the host may be silent

// Kept, for a function may replace them.
const exit = process.reallyExit.bind(process); // no exit handler of the function's holds it up
const { parse, stringify } = JSON;

class InitError extends Error {} // its message is for the action's author and needs no stack

// --- answers -----------------------------------------------------------------------------------

function reply(status, body) {
  const head = `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\n`;
  return `${head}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

function failure(status, message) {
  return reply(status, stringify({ error: message }));
}

// --- the action --------------------------------------------------------------------------------

class Action {
  constructor(out, err, environment) {
    this.out = out;
    this.err = err;
    this.environment = environment;
    this.initAsked = false;
    this.main = null;
  }

  async init(body) {
    if (this.initAsked) {
      const message = 'Cannot initialize the action more than once.';
      writeAll(this.out, message + '\n');
      writeAll(this.err, message + '\n');
      return failure('403 Forbidden', message);
    }
    this.initAsked = true;
    let answer;
    try {
      const request = parse(body);
      const value = request && request.value;
      if (!value || typeof value !== 'object' || !value.code) {
        const message = 'Missing main/no code to execute.';
        writeAll(this.err, message + '\n');
        answer = failure('403 Forbidden', message);
      } else {
        for (const [name, text] of Object.entries(value.env || {})) {
          this.environment[name] = asText(text);
        }
        this.main = await load(value);
        answer = reply('200 OK', '{"ok":true,"concurrent":true}');
      }
    } catch (error) {
      const message = 'Initialization has failed due to: ' + stackOf(error);
      writeAll(this.err, message + '\n');
      answer = failure('502 Bad Gateway', message);
    }
    if (this.main === null) this.endLogs();
    return answer;
  }

  async run(body) {
    if (this.main === null) return failure('403 Forbidden', 'System not initialized.');
    let answer;
    try {
      answer = await this.answer(body);
    } finally {
      this.endLogs();
    }
    return answer;
  }

  async answer(body) {
    let request;
    try {
      request = parse(body);
      if (!request || typeof request !== 'object' || Array.isArray(request)) {
        throw new TypeError('it is not an object');
      }
      for (const key of Object.keys(request)) {
        if (key !== 'value') this.tell(key, asText(request[key]));
      }
    } catch (error) {
      return failure('400 Bad Request', `The request of the run is malformed: ${error.message}`);
    }
    const { main } = this; // called without "this"
    let result;
    try {
      result = main(request.value === undefined ? {} : request.value);
    } catch (error) {
      report(this.err, error);
      return failure('502 Bad Gateway', `An error has occurred: ${shown(error)}`);
    }
    try {
      result = await result;
    } catch (error) {
      report(this.err, error);
      result = { error: error === undefined ? {} : serialised(error) };
    }
    return encode(result === undefined ? {} : result);
  }

  tell(key, text) {
    if (/[=\0]/.test(key) || text.includes('\0')) {
      throw new TypeError(`'${key}' cannot be told in the environment`);
    }
    this.environment['__OW_' + key.toUpperCase()] = text;
  }

  endLogs() {
    writeAll(this.out, SENTINEL_LINE);
    writeAll(this.err, SENTINEL_LINE);
  }
}

function encode(result) {
  if (result === null || typeof result !== 'object') {
    return failure('502 Bad Gateway', 'The action did not return a dictionary.');
  }
  try {
    const text = stringify(result);
    if (text[0] === '{' || text[0] === '[') return reply('200 OK', text);
  } catch (error) {
    const message = `The action returned what JSON cannot express: ${shown(error)}`;
    return failure('502 Bad Gateway', message);
  }
  return failure('502 Bad Gateway', 'The action did not return a dictionary.'); // by its toJSON
}

// What JSON says of an error: as the runtimes of OpenWhisk, its name, message, stack and own fields.
function serialised(error, above = []) {
  if (typeof error === 'function') return `[Function: ${error.name || 'anonymous'}]`;
  if (error === null || typeof error !== 'object') return error;
  if (above.includes(error)) return '[Circular]';
  const within = [...above, error];
  if (Array.isArray(error)) return error.map((each) => serialised(each, within));
  if (typeof error.toJSON === 'function') return error.toJSON();
  const fields = {};
  for (const key of Object.keys(error)) fields[key] = serialised(error[key], within);
  for (const key of ['name', 'message', 'stack', 'code']) {
    if (typeof error[key] === 'string') fields[key] = error[key];
  }
  return fields;
}

function shown(error) {
  try {
    return String(error);
  } catch {
    return 'an error that cannot be shown';
  }
}

function stackOf(error) {
  if (error instanceof InitError) return error.message;
  try {
    return String((error && error.stack) || error);
  } catch {
    return 'an error that cannot be shown';
  }
}

function report(err, error) {
  writeAll(err, stackOf(error) + '\n');
}

function asText(value) {
  if (typeof value === 'string') return value;
  return value === null ? '' : stringify(value);
}

// --- loading -----------------------------------------------------------------------------------

const PLAIN_NAME = /^[\p{ID_Start}$_][\p{ID_Continue}$]*(\.[\p{ID_Start}$_][\p{ID_Continue}$]*)*$/u;

async function load(value) {
  const main = value.main || 'main';
  const found = value.binary
    ? await loadArchive(value.code, main)
    : loadText(value.code, main);
  if (typeof found !== 'function') {
    throw new InitError(`Action entrypoint '${main}' is not a function.`);
  }
  return found;
}

// The source is the body of a function, so that `main` may be any name in it, exported or not.
function loadText(code, main) {
  if (!PLAIN_NAME.test(main)) throw new InitError(`Action entrypoint '${main}' is no name.`);
  const file = path.join(process.cwd(), 'index.js');
  const module = { exports: {}, filename: file, id: file, loaded: false };
  const names = ['exports', 'require', 'module', '__filename', '__dirname'];
  const look = `\n;try { return ${main} } catch (e) { if (e.name !== 'ReferenceError') throw e }`;
  const body = vm.compileFunction(code + look, names, {
    filename: file,
    importModuleDynamically: vm.constants && vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  });
  const given = [module.exports, createRequire(file), module, file, process.cwd()];
  const found = body.apply(module.exports, given);
  return found === undefined ? member(module.exports, main) : found;
}

function member(object, names) {
  return names.split('.').reduce((inner, name) => (inner == null ? undefined : inner[name]), object);
}

async function loadArchive(code, main) {
  const folder = process.cwd();
  unpack(Buffer.from(code, 'base64'), folder);
  if (!['package.json', 'index.js'].some((name) => fs.existsSync(path.join(folder, name)))) {
    throw new InitError('Zipped actions must contain either package.json or index.js at the root.');
  }
  const dot = main.lastIndexOf('.'); // "file.function"
  const target = path.join(folder, dot < 0 ? '' : main.slice(0, dot));
  const require = createRequire(path.join(folder, 'index.js'));
  let module;
  try {
    module = require(target);
  } catch (error) {
    if (!error || error.code !== 'ERR_REQUIRE_ESM') throw error;
    module = await import(require.resolve(target));
  }
  const name = main.slice(dot + 1);
  return module[name] === undefined && module.default ? module.default[name] : module[name];
}

// --- archives ----------------------------------------------------------------------------------

function unpack(data, folder) {
  let entries;
  try {
    if (data.length >= 4 && data.readUInt32LE(0) === 0x04034b50) entries = zipEntries(data);
    else if (data.length >= 2 && data.readUInt16BE(0) === 0x1f8b) entries = tarEntries(data);
    else throw new InitError('it begins as neither');
    for (const entry of entries) extract(entry, folder);
  } catch (error) {
    if (error instanceof InitError || error instanceof RangeError || error.code) {
      throw new InitError(`The code is not a zip or tar.gz archive in base64: ${error.message}.`);
    }
    throw error;
  }
}

function extract(entry, folder) {
  const target = path.join(folder, entry.name);
  if (target !== folder && !target.startsWith(folder + path.sep)) {
    throw new InitError(`'${entry.name}' lies outside of the archive`);
  }
  if (entry.name.endsWith('/')) {
    fs.mkdirSync(target, { recursive: true });
    return;
  }
  fs.mkdirSync(path.dirname(target), { recursive: true });
  if (entry.link) fs.symlinkSync(entry.content.toString(), target);
  else fs.writeFileSync(target, entry.content, { mode: (entry.mode & 0o777) | 0o600 });
}

function* zipEntries(data) {
  const { inflateRawSync } = require('zlib');
  const end = data.lastIndexOf(Buffer.from([0x50, 0x4b, 0x05, 0x06]));
  if (end < 0) throw new InitError('its directory is missing');
  let at = data.readUInt32LE(end + 16);
  let size = 0;
  for (let count = data.readUInt16LE(end + 10); count > 0; count--) {
    if (data.readUInt32LE(at) !== 0x02014b50) throw new InitError('its directory is damaged');
    const method = data.readUInt16LE(at + 10);
    const packed = data.readUInt32LE(at + 20);
    const nameLength = data.readUInt16LE(at + 28);
    const name = data.toString('utf8', at + 46, at + 46 + nameLength);
    const mode = data.readUInt32LE(at + 38) >>> 16;
    const header = data.readUInt32LE(at + 42);
    at += 46 + nameLength + data.readUInt16LE(at + 30) + data.readUInt16LE(at + 32);
    const start = header + 30 + data.readUInt16LE(header + 26) + data.readUInt16LE(header + 28);
    const raw = data.subarray(start, start + packed);
    if (method !== 0 && method !== 8) throw new InitError(`it is packed by method ${method}`);
    const maxOutputLength = UNPACKED_BYTES_MAX - size || 1;
    const content = method === 0 ? raw : inflateRawSync(raw, { maxOutputLength });
    size += content.length;
    if (size > UNPACKED_BYTES_MAX) throw new InitError('it unpacks to more than 512 MB');
    yield { name, mode, content, link: (mode & 0o170000) === 0o120000 };
  }
}

function* tarEntries(packed) {
  const data = require('zlib').gunzipSync(packed, { maxOutputLength: UNPACKED_BYTES_MAX });
  const text = (start, length) => data.toString('utf8', start, start + length).split('\0')[0];
  let longName = '';
  for (let at = 0; at + 512 <= data.length && data[at] !== 0; ) {
    const size = parseInt(text(at + 124, 12), 8) || 0;
    const kind = String.fromCharCode(data[at + 156] || 48);
    const content = data.subarray(at + 512, at + 512 + size);
    const prefix = text(at + 257, 5) === 'ustar' ? text(at + 345, 155) : '';
    const name = longName || (prefix ? prefix + '/' : '') + text(at, 100);
    const mode = parseInt(text(at + 100, 8), 8) || 0;
    longName = '';
    if (kind === 'L') longName = content.toString().split('\0')[0];
    else if (kind === 'x') longName = (/ path=([^\n]*)\n/.exec(content.toString()) || ['', ''])[1];
    else if (kind === '5') yield { name: name.replace(/\/*$/, '/') };
    else if (kind === '2') yield { name, link: true, content: Buffer.from(text(at + 157, 100)) };
    else if (kind === '0') yield { name, mode, content };
    at += 512 + Math.ceil(size / 512) * 512;
  }
}

// --- connections -------------------------------------------------------------------------------

class Connection {
  constructor(socket, action) {
    this.socket = socket;
    this.action = action;
    this.parts = []; // of the request that is coming; nearly always one
    this.size = 0;
    this.wanted = 0; // how long it will be at least
    this.busy = false;
    socket.on('data', (data) => this.take(data));
    socket.on('error', () => {}); // "close" follows
  }

  take(data) {
    this.parts.push(data);
    this.size += data.length;
    if (!this.busy && this.size >= this.wanted) this.next();
  }

  next() {
    const data = this.parts.length === 1 ? this.parts[0] : Buffer.concat(this.parts);
    this.parts = data.length ? [data] : [];
    const end = data.indexOf('\r\n\r\n');
    if (end < 0) {
      if (data.length > HEAD_BYTES_MAX) this.refuse('431 Too Large', 'The head exceeds 16384 bytes.');
      return;
    }
    const head = data.toString('latin1', 0, end).toLowerCase();
    const length = contentLength(head);
    if (length < 0) {
      this.refuse('411 Length Required', 'Requests need a Content-Length.');
    } else if (length > BODY_BYTES_MAX) {
      const message = `The body of ${length} bytes exceeds the limit of ${BODY_BYTES_MAX}.`;
      this.refuse('413 Content Too Large', message);
    } else if (data.length < end + 4 + length) {
      this.wanted = end + 4 + length;
    } else {
      this.wanted = 0;
      this.parts = data.length > end + 4 + length ? [data.subarray(end + 4 + length)] : [];
      this.size = data.length - end - 4 - length;
      this.busy = true;
      this.perform(head, data.toString('utf8', end + 4, end + 4 + length));
    }
  }

  async perform(head, body) {
    let answer;
    if (head.startsWith('post /run ')) answer = await this.action.run(body);
    else if (head.startsWith('post /init ')) answer = await this.action.init(body);
    else answer = failure('404 Not Found', 'There are only POST /init and POST /run.');
    this.socket.write(answer);
    this.busy = false;
    if (this.size > 0) this.next();
  }

  refuse(status, message) {
    this.busy = true; // for ever
    this.socket.end(failure(status, message), () => this.socket.destroy());
  }
}

function contentLength(head) {
  const found = /\r\ncontent-length:[ \t]*(\d{1,19})[ \t]*(\r\n|$)/.exec(head);
  if (found) return Number(found[1]);
  return /\r\n(content-length|transfer-encoding):/.test(head) ? -1 : 0;
}

// --- the process -------------------------------------------------------------------------------

// Write to a FIFO.  It waits while the pipe is full, as the logs of every runtime do.
function writeAll(fd, text) {
  const data = Buffer.isBuffer(text) ? text : Buffer.from(text);
  for (let done = 0; done < data.length; ) done += fs.writeSync(fd, data, done);
}

// Open a FIFO as descriptor `fd`, which so far was something else: the lowest free one is taken.
function replace(fd, file) {
  fs.closeSync(fd);
  if (fs.openSync(file, 'w') !== fd) exit(1);
}

// process.stdout or stderr: what is written is in the pipe before anything that comes later.
function stream(fd, number) {
  const made = new Writable({
    decodeStrings: true,
    write(chunk, encoding, done) {
      writeAll(fd, chunk);
      done();
    },
  });
  made.fd = number;
  return made;
}

// The environment as an object of ours: the real one calls setenv(), and glibc never frees what a
// variable held before; a million runs would fill a container.  Values become strings, as they do.
function ownEnvironment() {
  const variables = { ...process.env };
  process.env = new Proxy(variables, {
    set(target, name, value) {
      target[name] = String(value);
      return true;
    },
  });
  return variables;
}

// A thread that ends the process when nobody reads the FIFOs, or the host is silent for as long as
// the file `leash` allows, whatever the function does.
function leash(folder) {
  const { Worker } = require('worker_threads');
  const watch = `
    const fs = require('fs');
    const folder = require('worker_threads').workerData;
    const file = folder + '/stdout';
    const end = () => process.kill(process.pid, 'SIGKILL');
    setInterval(() => {
      try {
        fs.closeSync(fs.openSync(file, fs.constants.O_WRONLY | fs.constants.O_NONBLOCK));
      } catch (error) {
        if (error.code === 'ENXIO') end();
      }
    }, ${LEASH_MS});
    const sign = folder + '/leash';
    let silence = NaN;
    try {
      silence = parseFloat(fs.readFileSync(sign, 'ascii'));
    } catch {} // it may be silent for ever
    let seen = -1n;
    let silentLooks = 0;
    const look = () => {
      let found = seen;
      try {
        found = fs.statSync(sign, { bigint: true }).mtimeNs;
      } catch {}
      silentLooks = found === seen ? silentLooks + 1 : 0;
      seen = found;
      if (silentLooks >= ${LEASH_LOOKS}) end();
    };
    if (silence > 0) setInterval(look, (silence * 1000) / ${LEASH_LOOKS});`;
  const options = { eval: true, workerData: folder, env: {}, stdin: false };
  new Worker(watch, options).unref();
}

function main(folder) {
  replace(1, folder + '/stdout');
  replace(2, folder + '/stderr');
  // Descriptors of the proxy's own: what a function does to 1 and 2 loses only its own output.
  const out = fs.openSync(folder + '/stdout', 'w');
  const err = fs.openSync(folder + '/stderr', 'w');
  for (const [name, fd, number] of [['stdout', out, 1], ['stderr', err, 2]]) {
    Object.defineProperty(process, name, { value: stream(fd, number), configurable: true });
  }
  const action = new Action(out, err, ownEnvironment());
  let host = null;
  const server = net.createServer({ noDelay: true }, (socket) => {
    new Connection(socket, action);
    if (host === null) {
      host = socket;
      socket.on('close', () => exit(0));
    }
  });
  const work = process.cwd();
  process.chdir(folder); // the path of a socket holds 107 bytes; a relative one always fits
  server.listen('run.sock', () => {
    fs.chmodSync(path.join(folder, 'run.sock'), 0o666);
    process.chdir(work);
    writeAll(out, READY_LINE);
    setImmediate(() => leash(folder));
  });
}

if (require.main === module) main(process.argv[2]);
