"""Draws ../src/report/land.svg from land-50m.json of the npm package world-atlas:
python3 land.py land-50m.json > ../src/report/land.svg
"""
import json
import math
import sys

SOUTH, AREA_MIN, SCALE = -58.0, 1.2, 360.0  # degrees; square units of the picture; units per radian


def project(lon, lat):
    """Natural Earth I, y downwards."""
    lam, phi = math.radians(lon), math.radians(lat)
    p2 = phi * phi
    p4 = p2 * p2
    x = lam * (0.8707 - 0.131979 * p2 + p4 * (-0.013791 + p4 * (0.003971 * p2 - 0.001529 * p4)))
    y = phi * (1.007226 + p2 * (0.015085 + p4 * (-0.044475 + 0.028874 * p2 - 0.005916 * p4)))
    return x * SCALE, -y * SCALE


def rings(topology):
    (sx, sy), (tx, ty) = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs = []
    for arc in topology["arcs"]:
        x = y = 0
        points = []
        for dx, dy in arc:
            x, y = x + dx, y + dy
            points.append((x * sx + tx, y * sy + ty))
        arcs.append(points)
    for geometry in topology["objects"]["land"]["geometries"]:
        polygons = geometry["arcs"] if geometry["type"] == "MultiPolygon" else [geometry["arcs"]]
        for polygon in polygons:
            for ring in polygon:
                points = []
                for index in ring:
                    arc = arcs[index] if index >= 0 else arcs[~index][::-1]
                    points += arc[1 if points else 0:]
                yield points


def clip(points, keep, cross):
    """The part of a ring on one side of a meridian."""
    out = []
    for a, b in zip(points[-1:] + points[:-1], points):
        if keep(a) != keep(b):
            out.append(cross(a, b))
        if keep(b):
            out.append(b)
    return out


def cut(ring):
    """Rings that cross the antimeridian come in one piece: cut there, and put on either edge of the map."""
    points = [ring[0]]
    for lon, lat in ring[1:]:
        points.append((lon + 360 * round((points[-1][0] - lon) / 360), lat))
    for shift in (-360, 0, 360):
        part = [(lon + shift, lat) for lon, lat in points]
        for edge in (-180, 180):
            inside = lambda p, edge=edge: p[0] * edge <= edge * edge
            at = lambda a, b, edge=edge: (edge, a[1] + (b[1] - a[1]) * (edge - a[0]) / (b[0] - a[0]))
            part = clip(part, inside, at)
        if len(part) > 2:
            yield part


def area(a, b, c):
    return abs((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])) / 2


def simplify(points, area_min):
    """Visvalingam's: drop the point that spans the smallest triangle with its neighbours, and again."""
    points = points[:-1] if points[0] == points[-1] else points[:]
    while len(points) > 3:
        spans = [area(points[i - 1], points[i], points[(i + 1) % len(points)]) for i in range(len(points))]
        least = min(spans)
        if least >= area_min:
            break
        # All the small ones at once, but no two neighbours: quick enough.
        limit, kept, dropped = max(least, area_min / 8), [], False
        for point, span in zip(points, spans):
            dropped = span <= limit and not dropped
            if not dropped:
                kept.append(point)
        points = kept
    return points


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        topology = json.load(file)
    path = []
    for ring in (part for ring in rings(topology) if max(lat for _, lat in ring) > SOUTH for part in cut(ring)):
        points = simplify([project(*point) for point in ring], AREA_MIN)
        if len(points) < 3:
            continue
        size = abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(points, points[1:] + points[:1]))) / 2
        if size < AREA_MIN * 2:
            continue
        points = [(round(x), round(y)) for x, y in points]
        text, last = "M%d %d" % points[0] + "l", points[0]
        steps = []
        for point in points[1:]:
            step = (point[0] - last[0], point[1] - last[1])
            last = point
            if step != (0, 0):
                steps.append("%d %d" % step)
        path.append(text + " ".join(steps).replace(" -", "-") + "z")
    left, top = -990, round(project(0, 84)[1])
    height = round(project(0, SOUTH)[1]) - top
    print('<svg xmlns="http://www.w3.org/2000/svg" viewBox="%d %d %d %d">' % (left, top, -2 * left, height))
    print('<path class="land" d="%s"/>' % "\n".join(path))
    print("</svg>")


main()
