// Place of a DICOM file in its series, from the elements at the beginning of its header (PS3.5, 7.1 and 7.5).

const HEAD = 64 * 2 ** 10; // bytes
const LONG = /^(O[BDFLVW]|SQ|SV|U[CNRTV])$/; // value representations with a length of four bytes
const [SERIES, INSTANCE] = [0x0020000e, 0x00200013];
const [ITEM, SEQUENCE_END] = [0xfffee000, 0xfffee0dd];
const UNDEFINED = 0xffffffff;

/** The series and the instance number, `{ series, number }`, or null if the file has none that can be read. */
export async function placeOf(file) {
  try {
    const found = elements(new DataView(await file.slice(0, HEAD).arrayBuffer()));
    const place = { series: found.get(SERIES), number: Number.parseInt(found.get(INSTANCE), 10) };
    return place.series && !Number.isNaN(place.number) ? place : null;
  } catch {
    return null; // an element goes beyond the head, or the file has gone
  }
}

function elements(view) {
  const found = new Map();
  let depth = 0; // of sequences without a length
  for (let at = 132; at + 8 <= view.byteLength;) { // behind the preamble
    const tag = view.getUint16(at, true) * 2 ** 16 + view.getUint16(at + 2, true);
    if (tag >= ITEM) {
      if (tag === SEQUENCE_END) depth -= 1;
      at += 8;
      continue;
    }
    if (depth === 0 && tag > INSTANCE) break;
    const kind = text(view, at + 4, 2);
    const isExplicit = /^[A-Z]{2}$/.test(kind);
    const isLong = isExplicit && LONG.test(kind);
    const length = isExplicit && !isLong ? view.getUint16(at + 6, true) : view.getUint32(at + (isLong ? 8 : 4), true);
    at += isLong ? 12 : 8;
    if (length === UNDEFINED) {
      depth += 1;
      continue;
    }
    if (depth === 0 && (tag === SERIES || tag === INSTANCE)) found.set(tag, text(view, at, length));
    at += length;
  }
  return found;
}

const text = (view, at, length) => String.fromCharCode(...new Uint8Array(view.buffer, at, length)).replace(/[\0 ]+$/, "");
