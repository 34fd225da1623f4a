// The pictures that a model reads: where it takes one, and what of it can be drawn.

const LEAST_SIDE = 8, MOST_SIDE = 64;

// What a model with a processor of pictures is sent: {name, height, width, grey, shown}, where
// `shown` turns one of the network's own values into light from 0 to 1. Null for another model.
export function encoded(model) {
  const { processor } = model;
  if (processor?.kind !== "image") return null;
  const input = model.inputs.find(({ name }) => name === processor.input);
  const pixels = input?.parameters?.instead_of?.find(({ name }) => name === processor.pixels);
  if (!pixels || model.inputs.length > 1 || pixels.shape.length !== 4) return null;
  const [height, width] = processor.layout === "channels-last" ? pixels.shape.slice(1, 3) : pixels.shape.slice(2);
  const [mean] = processor.mean, [deviation] = processor.deviation;
  return {
    name: input.name, height, width, pixels, grey: processor.mode === "L",
    shown: (value) => (value * deviation + mean) / (255 * processor.scale),
  };
}

// The only input of a model that reads the pixels of a grey picture themselves, in the same form.
function raw(model) {
  const [only, ...others] = model.inputs;
  if (!only || others.length || only.datatype !== "FP32" || only.shape.length !== 4 || only.shape[1] !== 1) return null;
  const [, , height, width] = only.shape;
  return { name: only.name, height, width, pixels: only, grey: true, shown: (value) => value };
}

// What may be drawn for this model, or null: something grey of a few pixels.
export function drawable(model) {
  const found = encoded(model) ?? raw(model);
  const small = (side) => side >= LEAST_SIDE && side <= MOST_SIDE;
  return found?.grey && small(found.height) && small(found.width) ? found : null;
}

// The rows of light that a stored sample holds for `picture`, or null where it is no such picture.
export function rowsOf(sample, { pixels, height, width, shown }) {
  const [only, ...others] = sample?.inputs ?? [];
  if (!only || others.length || only.name !== pixels.name || !Array.isArray(only.data)) return null;
  const values = only.data.flat(Infinity);
  if (values.length !== height * width || !values.every(Number.isFinite)) return null;
  return Array.from({ length: height }, (_, row) => values.slice(row * width, (row + 1) * width).map(shown));
}
