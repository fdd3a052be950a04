/** Sizes of the pictures: as large as the stage allows, all by one rule. */

const SMALL = 128; // pixels: a picture up to here is drawn pixel by pixel
const UNKNOWN = 512; // pixels, of a picture that the server cannot read
const ENLARGED = { small: 10, large: 2 }; // at most, in CSS pixels per pixel
const SIDE_BY_SIDE = 1.15; // gain from which two pictures are stacked

/** Whether a picture's pixels are shown as they are. */
export function isSmall({ width, height }) {
  return Math.max(width, height) <= SMALL;
}

/**
 * Arrange `images` ({width, height} in pixels) in a room of `room.width` by `room.height` pixels.
 *
 * Returns the number of columns and the size of each picture, [width, height]. Of all numbers of
 * columns that one is taken which shows them largest; where that is narrower than `least`, the
 * rows grow beyond the room and the stage scrolls.
 */
export function arrange(images, room, gap, least) {
  const pictures = images.map(({ width, height }) => ({
    width: width || UNKNOWN,
    height: height || UNKNOWN,
  }));
  const number = pictures.length;
  let best = null;
  for (let columns = number; columns >= 1; columns -= 1) {
    const sizes = fitted(pictures, columns, Math.ceil(number / columns), room, gap);
    const side = sizes.reduce((sum, [width, height]) => sum + Math.sqrt(width * height), 0);
    const empty = (columns - (number % columns)) % columns;
    const gain = number === 2 ? SIDE_BY_SIDE : empty < (best?.empty ?? 0) ? 0.98 : 1.02;
    if (!best || side > best.side * gain) best = { columns, sizes, side, empty };
  }
  const narrowest = Math.min(...best.sizes.map(([width]) => width));
  if (narrowest >= least || number < 3) return best;
  const columns = Math.max(1, Math.min(number, Math.floor((room.width + gap) / (least + gap))));
  const tall = { width: room.width, height: Infinity };
  return { columns, sizes: fitted(pictures, columns, 1, tall, gap) };
}

/** Sizes of pictures in equal cells. */
function fitted(pictures, columns, rows, room, gap) {
  const width = (room.width - (columns - 1) * gap) / columns;
  const height = (room.height - (rows - 1) * gap) / rows;
  return pictures.map((picture) => {
    const most = isSmall(picture) ? ENLARGED.small : ENLARGED.large;
    const scale = Math.min(width / picture.width, height / picture.height, most);
    const even = whole(picture, scale);
    return [picture.width * even, picture.height * even].map((side) => Math.max(1, side));
  });
}

/** A small picture's pixels are all of one size: a whole number of the screen's. */
function whole(picture, scale) {
  if (!isSmall(picture)) return scale;
  const dots = window.devicePixelRatio || 1;
  return scale * dots >= 1 ? Math.floor(scale * dots) / dots : scale;
}
