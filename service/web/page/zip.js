// Members of a zip file (PKWARE APPNOTE 6.3), read where they lie: only the member that is needed is unpacked.

const END = 0x06054b50;
const MEMBER = 0x02014b50;
const LONGEST_END = 22 + 0xffff; // bytes: the end record and its comment
const MAX_DIRECTORY = 64 * 2 ** 20; // bytes
const MAX_MEMBER = 64 * 2 ** 20; // bytes, unpacked; the service takes 20 MiB unless it is told otherwise
const ELSEWHERE = 0xffffffff; // a size or place that only a zip64 record has

/** A zip that cannot be read; the message says what to do. */
export class ZipError extends Error {}

/** The members of a zip: `{ name, size, read }`, where `read()` resolves to a Blob or throws a `ZipError`. */
export async function membersOf(file) {
  const { count, start, length } = await findDirectory(file);
  const view = await bytesOf(file, start, length);
  const members = [];
  let at = 0;
  for (let index = 0; index < count; index += 1) {
    if (at + 46 > view.byteLength || view.getUint32(at, true) !== MEMBER) throw damaged();
    const [name, extra, comment] = [28, 30, 32].map((field) => view.getUint16(at + field, true));
    members.push(member(file, view, at, name));
    at += 46 + name + extra + comment;
  }
  return members.filter((each) => !each.name.endsWith("/"));
}

async function findDirectory(file) {
  const tail = Math.min(file.size, LONGEST_END);
  const view = await bytesOf(file, file.size - tail, tail);
  for (let at = tail - 22; at >= 0; at -= 1) {
    if (view.getUint32(at, true) !== END) continue;
    const found = { count: view.getUint16(at + 10, true), length: view.getUint32(at + 12, true), start: view.getUint32(at + 16, true) };
    if (found.start === ELSEWHERE || found.count === 0xffff) throw new ZipError("This zip is in the zip64 format. Unpack it, and drop the folder.");
    if (found.start + found.length > file.size || found.length > MAX_DIRECTORY) throw damaged();
    return found;
  }
  throw damaged();
}

function member(file, view, at, nameLength) {
  if (at + 46 + nameLength > view.byteLength) throw damaged();
  const encrypted = (view.getUint16(at + 8, true) & 1) === 1;
  const method = view.getUint16(at + 10, true);
  const [packed, size, start] = [20, 24, 42].map((field) => view.getUint32(at + field, true));
  const name = new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + at + 46, nameLength));
  const read = async () => {
    if (encrypted) throw new ZipError("This file in the zip is encrypted. Unpack the zip with its password, and drop the folder.");
    if (method !== 0 && method !== 8) throw new ZipError("This file is packed by a method that browsers do not unpack. Unpack the zip, and drop the folder.");
    if ([packed, size, start].includes(ELSEWHERE)) throw new ZipError("This zip is in the zip64 format. Unpack it, and drop the folder.");
    if (size > MAX_MEMBER) throw new ZipError(`Unpacked, this file has ${Math.round(size / 2 ** 20)} MiB, and the limit is ${MAX_MEMBER / 2 ** 20} MiB.`);
    return unpacked(await packedBytes(file, start, packed), method, size);
  };
  return { name, size, read };
}

async function packedBytes(file, start, length) {
  const head = await bytesOf(file, start, 30);
  const from = start + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  if (from + length > file.size) throw damaged();
  return file.slice(from, from + length);
}

/** Unpack, and stop at the announced size: a member that goes on is damaged, or made to fill the memory. */
async function unpacked(blob, method, size) {
  if (method === 0) return blob;
  const parts = [];
  let length = 0;
  try {
    const reader = blob.stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
    for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
      length += value.length;
      if (length > size) {
        await reader.cancel();
        throw damaged();
      }
      parts.push(value);
    }
  } catch {
    throw damaged();
  }
  if (length !== size) throw damaged();
  return new Blob(parts);
}

async function bytesOf(file, start, length) {
  const buffer = await file.slice(start, start + length).arrayBuffer();
  if (buffer.byteLength < length) throw damaged();
  return new DataView(buffer);
}

const damaged = () => new ZipError("The zip is damaged or incomplete. Copy or pack it again.");
