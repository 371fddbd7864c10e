// Projections of the sphere, for the maps. Degrees; x to the right and y upwards; null where a place on the plane is outside
// the map by more than `slack`, a fraction of its size.
const PROJECTIONS = (() => {
  const RAD = Math.PI / 180;

  // Savric, Patterson & Jenny 2018, as in projections.py.
  const [A1, A2, A3, A4] = [1.340264, -0.081106, 0.000893, 0.003796];
  const ROOT = Math.sqrt(3);
  const slope = (q) => A1 + 3 * A2 * q + q ** 3 * (7 * A3 + 9 * A4 * q);
  const height = (t, q) => t * (A1 + A2 * q + q ** 3 * (A3 + A4 * q));
  const wrap = (longitude) => (Math.abs(longitude) <= 180 ? longitude : ((((longitude + 180) % 360) + 360) % 360) - 180);
  const earth = {
    extent: [(2 * ROOT * Math.PI) / (3 * A1), height(Math.PI / 3, (Math.PI / 3) ** 2)],
    forward(longitude, latitude) {
      const t = Math.asin((ROOT / 2) * Math.sin(latitude * RAD)), q = t * t;
      return [(2 * ROOT * wrap(longitude) * RAD * Math.cos(t)) / (3 * slope(q)), height(t, q)];
    },
    inverse(x, y, slack = 0) {
      let t = y / A1;
      for (let i = 0; i < 6; i++) t -= (height(t, t * t) - y) / slope(t * t);
      const sine = (2 / ROOT) * Math.sin(t);
      const longitude = (x * 3 * slope(t * t)) / (2 * ROOT * Math.cos(t)) / RAD;
      if (Math.abs(longitude) > 180 * (1 + slack) || Math.abs(sine) > 1) return null;
      return [Math.max(-180, Math.min(180, longitude)), Math.asin(sine) / RAD];
    },
    sides: (longitude) => wrap(longitude) > 0,
  };

  // Lambert's azimuthal equal-area map of each hemisphere, Greenwich towards the middle of the lower edge in the north.
  const RIM = Math.SQRT2, GAP = 0.06;
  const hemispheres = {
    extent: [2 * RIM + GAP, RIM],
    forward(longitude, latitude) {
      const north = latitude >= 0, radius = 2 * Math.sin(((90 - Math.abs(latitude)) / 2) * RAD);
      return [(north ? -1 : 1) * (RIM + GAP) + radius * Math.sin(longitude * RAD), (north ? -1 : 1) * radius * Math.cos(longitude * RAD)];
    },
    inverse(x, y, slack = 0) {
      const north = x < 0, across = x + (north ? 1 : -1) * (RIM + GAP), radius = Math.hypot(across, y);
      if (radius > RIM * (1 + 2 * slack)) return null;
      const latitude = 90 - (2 * Math.asin(Math.min(radius, RIM) / 2)) / RAD;
      return [Math.atan2(across, north ? -y : y) / RAD, north ? latitude : -latitude];
    },
    sides: (longitude, latitude) => latitude >= 0,
  };

  const plate = {
    extent: [180, 90],
    forward: (longitude, latitude) => [wrap(longitude), latitude],
    inverse: (x, y) => (Math.abs(x) > 180 || Math.abs(y) > 90 ? null : [x, y]),
    sides: earth.sides,
  };
  return { "equal-earth": earth, hemispheres, "plate-carree": plate };
})();
